-- Takes the id ARGV[1] from the calls KEYS[3] that were set aside. If ARGV[2] is '1', it is due now
-- and is tried as often as before, unless it has been called again since.
--
-- Follows `Book::take_back` in lock-core/src/table/book.rs. Returns 1 if it was there, else 0.

local id = ARGV[1]
local text = redis.call('HGET', KEYS[3], id)
if not text then
  return 0
end
local known = read_record(id)
local limit, pause, length, rest = string.match(text, '^%d+ %d+ (%d+) (%d+) (%d+) (.*)$')
local retry = {limit = tonumber(limit), pause = tonumber(pause)}
local arguments = string.sub(rest, tonumber(length) + 1)
local record = called(id, arguments, 0, nil, retry, now_in_microseconds())
redis.call('HDEL', KEYS[3], id)
if ARGV[2] == '1' and not known then
  write_record(id, record, record.due)
end
return 1
