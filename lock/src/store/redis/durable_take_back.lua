-- Takes the id ARGV[1] from the calls KEYS[3] that were set aside; if ARGV[2] is '1', it is due
-- now, unless it was called anew since.
--
-- Follows `Book::take_back` in core/durable.rs. Answers 1 if it was there, else 0.

local id = ARGV[1]
local text = redis.call('HGET', KEYS[3], id)
if not text then
  return 0
end
local known = read_record(id)
local length, rest = string.match(text, '^%d+ %d+ (%d+) (.*)$')
local record = called(id, string.sub(rest, tonumber(length) + 1), 0, nil, now_in_microseconds())
redis.call('HDEL', KEYS[3], id)
if ARGV[2] == '1' and not known then
  write_record(id, record, record.due)
end
return 1
