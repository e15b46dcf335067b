-- Makes each lock KEYS[i] that is held by the token ARGV[3i-2] last for at least ARGV[3i-1]
-- milliseconds from now on. ARGV[3i] is its queue.
--
-- One key for each lock: while a slot of a Redis Cluster is being moved, a script with a key that is
-- there and another that is not is refused, and the queue of a lock that nobody waits for is never
-- there. So the queue is no key of the call, and where it may not be read, nobody is known to wait.
--
-- Never creates a key: a lock that is gone may be held by somebody else a moment later. PEXPIRE
-- and not SET, because it works when the server's memory is full. `pcall`, so that a key of
-- another type under one id says nothing about the other locks of the batch.
--
-- Answers 1 for each lock that is the token's, 2 if others wait for it, else 0.

local answer = {}
local short = {}
for i = 1, #KEYS do
  answer[i] = 0
  if redis.pcall('GET', KEYS[i]) == ARGV[3 * i - 2] then
    answer[i] = redis.pcall('EXISTS', ARGV[3 * i]) == 1 and 2 or 1
    -- What `extend` has added is not taken away.
    short[i] = redis.call('PTTL', KEYS[i]) < tonumber(ARGV[3 * i - 1])
  end
end
for i = 1, #KEYS do
  if short[i] then
    redis.call('PEXPIRE', KEYS[i], ARGV[3 * i - 1])
  end
end
return answer
