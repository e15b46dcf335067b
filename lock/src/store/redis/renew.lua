-- Makes each lock KEYS[i] that is held by the token ARGV[2i-1] last for at least ARGV[2i]
-- milliseconds from now on.
--
-- Never creates a key: a lock that is gone may be held by somebody else a moment later. PEXPIRE
-- and not SET, because it works when the server's memory is full. `pcall`, so that a key of
-- another type under one id says nothing about the other locks of the batch.
--
-- Answers 1 for each lock that is the token's, else 0.

local ours = {}
local short = {}
for i, key in ipairs(KEYS) do
  ours[i] = 0
  if redis.pcall('GET', key) == ARGV[2 * i - 1] then
    ours[i] = 1
    -- What `extend` has added is not taken away.
    short[i] = redis.call('PTTL', key) < tonumber(ARGV[2 * i])
  end
end
for i, key in ipairs(KEYS) do
  if short[i] then
    redis.call('PEXPIRE', key, ARGV[2 * i])
  end
end
return ours
