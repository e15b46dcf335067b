-- Takes the lock KEYS[1], whose queue is KEYS[2], away from its holder, and notifies the holder's
-- client. If ARGV[2] is not '', it is a '=' and a token, and the lock is taken only from that
-- token. Hands the lock to the first living waiter, which has ARGV[1] milliseconds to claim it, or
-- frees it.
--
-- GET fails on a key of another type, so a key that is not a lock is never deleted.
--
-- Returns 1 if the lock was held (by that token, if there is one), plus 2 if it was handed over.

local holder = redis.call('GET', KEYS[1])
if ARGV[2] ~= '' and (not holder or '=' .. holder ~= ARGV[2]) then
  return 0
end
local first, ticket, dead = first_waiter(KEYS[2])
local answer = holder and 1 or 0
if first then
  hand_over(KEYS[1], KEYS[2], first, dead, ARGV[1])
  answer = answer + 2
else
  remove(KEYS[2], dead)
  if holder then
    redis.call('DEL', KEYS[1])
  end
end
if holder then
  tell(holder, 'taken')
end
return answer
