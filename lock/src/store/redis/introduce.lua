-- Keeps what a client says of itself in the hash KEYS[1], for ARGV[1] milliseconds: from ARGV[2] on,
-- fields and their values. A field that it says no longer is removed.

redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
