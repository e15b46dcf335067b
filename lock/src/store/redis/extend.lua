-- Adds ARGV[2] milliseconds to what remains of the lock KEYS[1], if the token ARGV[1] holds it.
--
-- Answers the milliseconds that remain then, or -1 if the lock is not the token's.

if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then
  return -1
end
local remaining = redis.call('PTTL', KEYS[1]) + tonumber(ARGV[2])
redis.call('PEXPIRE', KEYS[1], remaining)
return remaining
