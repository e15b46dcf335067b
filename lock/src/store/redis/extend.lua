-- Adds ARGV[2] milliseconds to what remains of the lock KEYS[1], if the token ARGV[1] holds it, up to
-- the longest lease there can be, ARGV[3].
--
-- One that is eternal, or lasts longer already, is cut to that, as acquire.lua cuts it for whoever
-- asks for the lock: its holder must not count on more.
--
-- Answers the milliseconds that remain then, or -1 if the lock is not the token's.

if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then
  return -1
end
local left, longest = redis.call('PTTL', KEYS[1]), tonumber(ARGV[3])
local remaining = left < 0 and longest or math.min(left + tonumber(ARGV[2]), longest)
redis.call('PEXPIRE', KEYS[1], remaining)
return remaining
