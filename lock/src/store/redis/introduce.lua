-- Keeps what a client says of itself under KEYS[1], for ARGV[1] milliseconds: from ARGV[2] on, fields
-- and their values, as one text of JSON. One command, so that there is no moment without an expiry.

local record = {}
for i = 2, #ARGV, 2 do
  record[ARGV[i]] = ARGV[i + 1]
end
redis.call('SET', KEYS[1], cjson.encode(record), 'PX', ARGV[1])
return 1
