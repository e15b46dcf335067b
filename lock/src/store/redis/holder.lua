-- Who holds each lock KEYS[2i-1], for how many milliseconds (-1: for ever), and how many living
-- waiters are in its queue KEYS[2i]?
--
-- Answers the time now in milliseconds, then for each lock {token, remaining, waiters}, or nothing if
-- nobody holds it, or the error's text if the keys are none of a lock. One script, so that the token
-- and the time belong to the same holder.

local now = milliseconds()
local answer = {now}
for i = 1, #KEYS / 2 do
  local holder = redis.pcall('GET', KEYS[2 * i - 1])
  -- Each waiter that is alive has one mark.
  local waiters = holder and redis.pcall('ZCOUNT', KEYS[2 * i], now, '(' .. FIRST_TICKET)
  local failure = type(holder) == 'table' and holder or type(waiters) == 'table' and waiters
  if failure then
    answer[i + 1] = failure.err
  else
    answer[i + 1] = holder and {holder, redis.call('PTTL', KEYS[2 * i - 1]), waiters}
  end
end
return answer
