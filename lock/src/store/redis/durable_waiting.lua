-- Returns the calls that wait in the order KEYS[1], at most ARGV[1] of them, those due first: {how
-- many there are, id, milliseconds until it is due, id, ...}.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit = tonumber(ARGV[1])
local first = limit > 0 and redis.call('ZRANGE', KEYS[1], 0, limit - 1, 'WITHSCORES') or {}
local answer = {redis.call('ZCARD', KEYS[1])}
for i = 1, #first, 2 do
  answer[#answer + 1] = first[i]
  answer[#answer + 1] = math.max(tonumber(first[i + 1]) - now, 0)
end
return answer
