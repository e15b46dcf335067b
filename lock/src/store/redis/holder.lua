-- Who holds the lock KEYS[1], for how many milliseconds (-1: for ever), and how many living
-- waiters are in its queue KEYS[2]?
--
-- Answers {token, remaining, waiters}, or nothing if nobody holds it. One script, so that the
-- token and the time belong to the same holder.

local holder = redis.call('GET', KEYS[1])
if not holder then
  return false
end
-- Each waiter that is alive has one mark.
local waiters = redis.call('ZCOUNT', KEYS[2], milliseconds(), '(' .. FIRST_TICKET)
return {holder, redis.call('PTTL', KEYS[1]), waiters}
