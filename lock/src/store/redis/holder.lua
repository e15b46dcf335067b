-- Returns the server's time in milliseconds. Then for each lock KEYS[2i-1], whose queue is
-- KEYS[2i]: {token, remaining milliseconds (-1: no expiry), number of living waiters}, or nil if
-- nobody holds it, or the error's text if the keys are not those of a lock. One script, so that the
-- token and the time belong to the same holder.
--
-- If ARGV[1] is 'alone', the keys are only those of the locks, and waiters are not counted: while a
-- slot of a Redis Cluster is being moved, one of two keys may be gone.

local now = milliseconds()
local step = ARGV[1] == 'alone' and 1 or 2
local answer = {now}
for i = 1, #KEYS / step do
  local key, queue = KEYS[step * (i - 1) + 1], step == 2 and KEYS[2 * i]
  local holder = redis.pcall('GET', key)
  -- Each living waiter has one mark.
  local waiters = holder and (queue and redis.pcall('ZCOUNT', queue, now, '(' .. FIRST_TICKET) or 0)
  local failure = type(holder) == 'table' and holder or type(waiters) == 'table' and waiters
  if failure then
    answer[i + 1] = failure.err
  else
    answer[i + 1] = holder and {holder, redis.call('PTTL', key), waiters}
  end
end
return answer
