-- Makes each lock KEYS[i] that the token ARGV[3i-2] holds last for at least ARGV[3i-1] milliseconds
-- from now on. ARGV[3i] is its queue.
--
-- One key for each lock: while a slot of a Redis Cluster is being moved, a node refuses a script if
-- one of its keys is there and another is not, and the queue of a lock without waiters is never
-- there. So the queue is not a key of the call; if it may not be read, no waiters are known.
--
-- Never creates a key: a lock that is gone may be held by another client a moment later. PEXPIRE
-- rather than SET, because it works when the server's memory is full. `pcall`, so that a key of
-- another type under one id does not affect the other locks of the batch.
--
-- Returns 1 for each lock that the token holds, 2 if others wait for it, else 0.

local answer = {}
local short = {}
for i = 1, #KEYS do
  answer[i] = 0
  if redis.pcall('GET', KEYS[i]) == ARGV[3 * i - 2] then
    answer[i] = redis.pcall('EXISTS', ARGV[3 * i]) == 1 and 2 or 1
    -- Time that `extend` has added is not taken away.
    short[i] = redis.call('PTTL', KEYS[i]) < tonumber(ARGV[3 * i - 1])
  end
end
for i = 1, #KEYS do
  if short[i] then
    redis.call('PEXPIRE', KEYS[i], ARGV[3 * i - 1])
  end
end
return answer
