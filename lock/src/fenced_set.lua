-- Writes the value ARGV[1] into the hash KEYS[1], unless a fencing token larger than ARGV[2] has
-- written there before. Returns 1 if the value was written, else 0.
--
-- Tokens are compared as text: as Lua numbers they would lose their last digits.

local function older(token, other)
  if #token ~= #other then
    return #token < #other
  end
  return token < other
end

local known = redis.call('HGET', KEYS[1], 'fence')
if known and older(ARGV[2], known) then
  return 0
end
redis.call('HSET', KEYS[1], 'value', ARGV[1], 'fence', ARGV[2])
return 1
