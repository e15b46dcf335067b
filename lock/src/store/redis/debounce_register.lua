-- Makes the call of the token ARGV[1] the newest of the window KEYS[1], which is then due
-- ARGV[2] milliseconds from now, at the latest ARGV[3] milliseconds after its first call ('' for
-- no such bound). The window is kept for ARGV[4] milliseconds beyond its due time.
--
-- Follows `Window::register` in core/debounce.rs. The window is a hash: call and caller of the
-- newest call; ran, the highest call that a run has covered; first and due, in milliseconds of
-- the server's clock.
--
-- Answers {number of the call, milliseconds until the window is due}.

local window = redis.call('HMGET', KEYS[1], 'call', 'caller', 'ran', 'first', 'due')
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)

local call = tonumber(window[1] or '0')
local ran = tonumber(window[3] or '0')
local first = tonumber(window[4] or '0')
local due = tonumber(window[5] or '0')
local open = call > ran

-- Registered already: this is the second request of one call, whose first answer was lost.
if not (open and window[2] == ARGV[1]) then
  if not open then
    first = now
  end
  call = math.max(call + 1, micros)
  due = now + tonumber(ARGV[2])
  if ARGV[3] ~= '' then
    due = math.min(due, first + tonumber(ARGV[3]))
  end
end

local due_in = math.max(due - now, 0)
local text = string.format('%.0f', call)
redis.call('HSET', KEYS[1],
  'call', text,
  'caller', ARGV[1],
  'first', string.format('%.0f', first),
  'due', string.format('%.0f', due))
redis.call('PEXPIRE', KEYS[1], due_in + tonumber(ARGV[4]))
return {text, due_in}
