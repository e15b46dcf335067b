-- Frees the lock KEYS[1], whoever holds it.
--
-- GET fails on a key of another type: what is not a lock is not deleted.
--
-- Answers 1 if somebody held it, else 0.

if not redis.call('GET', KEYS[1]) then
  return 0
end
return redis.call('DEL', KEYS[1])
