-- Who holds each lock KEYS[2i-1], for how many milliseconds (-1: for ever), and how many living
-- waiters are in its queue KEYS[2i]? If ARGV[1] is 'alone', the keys are those of the locks only, and
-- no waiters are counted: while a slot of a Redis Cluster is being moved, one key of two may be gone.
--
-- Answers the time now in milliseconds, then for each lock {token, remaining, waiters}, or nothing if
-- nobody holds it, or the error's text if the keys are none of a lock. One script, so that the token
-- and the time belong to the same holder.

local now = milliseconds()
local step = ARGV[1] == 'alone' and 1 or 2
local answer = {now}
for i = 1, #KEYS / step do
  local key, queue = KEYS[step * (i - 1) + 1], step == 2 and KEYS[2 * i]
  local holder = redis.pcall('GET', key)
  -- Each waiter that is alive has one mark.
  local waiters = holder and (queue and redis.pcall('ZCOUNT', queue, now, '(' .. FIRST_TICKET) or 0)
  local failure = type(holder) == 'table' and holder or type(waiters) == 'table' and waiters
  if failure then
    answer[i + 1] = failure.err
  else
    answer[i + 1] = holder and {holder, redis.call('PTTL', key), waiters}
  end
end
return answer
