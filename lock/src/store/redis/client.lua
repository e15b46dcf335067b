-- What a client has said of itself, in the hash KEYS[1]: fields and their values; nothing if it is not
-- known.

return redis.call('HGETALL', KEYS[1])
