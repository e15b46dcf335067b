-- Returns the calls in the hash KEYS[1] as durable_finish.lua wrote them: {id, text, ...}.

return redis.call('HGETALL', KEYS[1])
