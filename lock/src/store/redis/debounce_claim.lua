-- Lets the call ARGV[2] of the token ARGV[1] run, if the window KEYS[1] is due and no other run
-- goes on: takes the run's lock KEYS[2] for ARGV[3] milliseconds and draws a fence from the
-- counter KEYS[3]. The window is kept for ARGV[4] milliseconds as a tombstone. ARGV[5] is how
-- many milliseconds the newest caller may be late before another one may take its place.
--
-- Follows `Window::claim` and `Window::begin` in core/debounce.rs.
--
-- Answers {'granted', fence}, {'superseded'}, {'not yet', milliseconds} or {'running',
-- milliseconds that remain of that run's lock}.

local window = redis.call('HMGET', KEYS[1], 'call', 'caller', 'ran', 'due', 'ran_by')
local running = redis.call('GET', KEYS[2])
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)

local newest = tonumber(window[1] or '0')
local ran = tonumber(window[3] or '0')
local due = tonumber(window[4] or '0')
local call = tonumber(ARGV[2])

-- The run is ours already: the answer to an earlier claim was lost.
if running ~= ARGV[1] then
  if call <= ran then
    -- Unless it was this very call that was granted the run, and has not heard of it until the
    -- run's lock had expired.
    if window[5] ~= ARGV[1] then
      return {'superseded'}
    end
  elseif newest > 0 then
    if window[2] ~= ARGV[1] then
      due = due + tonumber(ARGV[5])
    end
    if now < due then
      redis.call('PEXPIRE', KEYS[1], due - now + tonumber(ARGV[4]))
      return {'not yet', due - now}
    end
  end
  -- Here it is due. An empty window means that the data was lost: this call is then all there is.
  if running then
    local left = redis.call('PTTL', KEYS[2])
    -- The newest caller is alive: an older one must not run in its place once the run is over,
    -- merely because it asks first.
    if window[2] == ARGV[1] and now > due then
      redis.call('HSET', KEYS[1], 'due', digits(now))
    end
    -- Whoever waits keeps the window: a run may go on for longer than that.
    redis.call('PEXPIRE', KEYS[1], math.max(left, 0) + tonumber(ARGV[4]))
    return {'running', left}
  end
end

local fence, failure = next_fence(KEYS[3])
if not fence then
  return failure
end

local covered = digits(math.max(newest, call))
local text = digits(fence)
redis.call('HSET', KEYS[1], 'call', covered, 'ran', covered, 'ran_by', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
redis.call('SET', KEYS[3], text)
return {'granted', text}
