-- Makes each lock KEYS[2i-1] that is held by the token ARGV[2i-1] last for at least ARGV[2i]
-- milliseconds from now on. KEYS[2i] is its queue.
--
-- Never creates a key: a lock that is gone may be held by somebody else a moment later. PEXPIRE
-- and not SET, because it works when the server's memory is full. `pcall`, so that a key of
-- another type under one id says nothing about the other locks of the batch.
--
-- Answers 1 for each lock that is the token's, 2 if others wait for it, else 0.

local answer = {}
local short = {}
for i = 1, #KEYS / 2 do
  local key = KEYS[2 * i - 1]
  answer[i] = 0
  if redis.pcall('GET', key) == ARGV[2 * i - 1] then
    answer[i] = 1 + redis.call('EXISTS', KEYS[2 * i])
    -- What `extend` has added is not taken away.
    short[i] = redis.call('PTTL', key) < tonumber(ARGV[2 * i])
  end
end
for i = 1, #KEYS / 2 do
  if short[i] then
    redis.call('PEXPIRE', KEYS[2 * i - 1], ARGV[2 * i])
  end
end
return answer
