-- Returns {milliseconds, kept, id, ...}: the ids that are due in the order KEYS[1], at most ARGV[1]
-- of them; how many milliseconds it is until another one is due (-1: there is none); and how many
-- ids are kept.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
local another = redis.call('ZRANGE', KEYS[1], #ids, #ids, 'WITHSCORES')
table.insert(ids, 1, redis.call('ZCARD', KEYS[1]))
table.insert(ids, 1, another[2] and math.max(tonumber(another[2]) - now, 0) or -1)
return ids
