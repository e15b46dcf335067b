-- Adds ARGV[2] milliseconds to the remaining time of the lock KEYS[1], if the token ARGV[1] holds
-- it, up to the longest possible lease, ARGV[3].
--
-- A lock that never expires, or already lasts longer, is cut to that. acquire.lua does so for any
-- client that asks for the lock, so its holder must not rely on more.
--
-- Returns the milliseconds that now remain, or -1 if the token does not hold the lock.

if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then
  return -1
end
local left, longest = redis.call('PTTL', KEYS[1]), tonumber(ARGV[3])
local remaining = left < 0 and longest or math.min(left + tonumber(ARGV[2]), longest)
redis.call('PEXPIRE', KEYS[1], remaining)
return remaining
