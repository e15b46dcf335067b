-- Who holds the lock KEYS[1], and for how many milliseconds (-1: for ever)?
--
-- Answers {token, remaining}, or nothing if nobody holds it. One script, so that the token and
-- the time belong to the same holder.

local holder = redis.call('GET', KEYS[1])
if not holder then
  return false
end
return {holder, redis.call('PTTL', KEYS[1])}
