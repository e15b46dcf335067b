-- Stores what a client says about itself under KEYS[1] for ARGV[1] milliseconds: the fields and
-- values from ARGV[2] on, as one JSON text. One command, so that the key is never without an
-- expiry.

local record = {}
for i = 2, #ARGV, 2 do
  record[ARGV[i]] = ARGV[i + 1]
end
redis.call('SET', KEYS[1], cjson.encode(record), 'PX', ARGV[1])
return 1
