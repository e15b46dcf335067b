-- Makes the call of the token ARGV[1] the newest of the window KEYS[1], which is then due
-- ARGV[2] milliseconds from now, at the latest ARGV[3] milliseconds after its first call ('' for
-- no such bound). The window is kept for ARGV[4] milliseconds beyond its due time.
--
-- Follows `Window::register` in core/debounce.rs. The window is a hash: call and caller of the
-- newest call; ran, the highest call that a run has covered, and ran_by, who ran; first and due,
-- in milliseconds of the server's clock; and for each client, under 'of:' and its name, its own
-- number for its last call and the window's number.
--
-- Answers {number of the call, milliseconds until the window is due}.

local client, number = string.match(ARGV[1], '^(.*):(%d+)$')
if not client then
  client, number = ARGV[1], '0'
end
local mine = 'of:' .. client

local window = redis.call('HMGET', KEYS[1], 'call', 'ran', 'first', 'due', mine)
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)

local call = tonumber(window[1] or '0')
local ran = tonumber(window[2] or '0')
local first = tonumber(window[3] or '0')
local due = tonumber(window[4] or '0')

-- The answer to an earlier request was lost. If the client has made a newer call since, that one
-- stands for both.
if window[5] then
  local known, its_call = string.match(window[5], '^(%d+) (%d+)$')
  if tonumber(number) <= tonumber(known) then
    return {its_call, math.max(due - now, 0)}
  end
end

local forget = {}
if call <= ran then
  first = now
  -- Clients that were not heard of for a minute will not repeat a request.
  if redis.call('HLEN', KEYS[1]) > 100 + 6 then
    local fields = redis.call('HGETALL', KEYS[1])
    for i = 1, #fields, 2 do
      local its_call = string.match(fields[i + 1], '^%d+ (%d+)$')
      if string.sub(fields[i], 1, 3) == 'of:' and tonumber(its_call) + 60000000 <= micros then
        forget[#forget + 1] = fields[i]
      end
    end
  end
end
call = math.max(call + 1, micros)
due = now + tonumber(ARGV[2])
if ARGV[3] ~= '' then
  due = math.min(due, first + tonumber(ARGV[3]))
end

local due_in = math.max(due - now, 0)
local text = string.format('%.0f', call)
for i = 1, #forget do
  redis.call('HDEL', KEYS[1], forget[i])
end
redis.call('HSET', KEYS[1],
  'call', text,
  'caller', ARGV[1],
  'first', string.format('%.0f', first),
  'due', string.format('%.0f', due),
  mine, number .. ' ' .. text)
redis.call('PEXPIRE', KEYS[1], due_in + tonumber(ARGV[4]))
return {text, due_in}
