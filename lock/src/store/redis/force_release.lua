-- Takes the lock KEYS[1], whose queue is KEYS[2], away from its holder, and tells that client; if
-- ARGV[2] is not '', only from the token that stands in it behind a '='. Hands it to the first living waiter, for ARGV[1]
-- milliseconds to claim it, or frees it.
--
-- GET fails on a key of another type: what is not a lock is not deleted.
--
-- Answers 1 if it was held by whom it should, plus 2 if it was handed over.

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
