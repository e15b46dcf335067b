-- Takes each lock KEYS[i] that is free for the token ARGV[2i-1], for ARGV[2i] milliseconds, and
-- draws the fences of all of them at once from the counter, which is the last key.
--
-- This is the first try of an acquire, and the only one if the lock is free: one command of the
-- server for a lock instead of the five of acquire.lua. One script, so that nobody comes between
-- a lock and its fence: a lock that is forced free and taken again in that moment would have the
-- smaller fence of the two. What is not free is left to acquire.lua, which knows whose it is.
--
-- Answers {the first fence, then 1 for each lock that was taken, else 0}.

-- See acquire.lua for the clock.
local counter = KEYS[#KEYS]
local time = redis.call('TIME')
local fence = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('GET', counter) or '0')
if not last then
  return redis.error_reply('ERR the fence counter ' .. counter .. ' does not hold a number')
end
if fence <= last then
  fence = last + 1
end

local answer = {string.format('%.0f', fence)}
local taken = 0
for i = 1, #KEYS - 1 do
  if redis.call('SET', KEYS[i], ARGV[2 * i - 1], 'NX', 'PX', ARGV[2 * i]) then
    taken = taken + 1
    answer[i + 1] = 1
  else
    answer[i + 1] = 0
  end
end
if taken > 0 then
  redis.call('SET', counter, string.format('%.0f', fence + taken - 1))
end
return answer
