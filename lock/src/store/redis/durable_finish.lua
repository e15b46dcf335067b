-- Ends the run of the call ARGV[3] of the id ARGV[1], and frees the run's lock KEYS[4], which the
-- token ARGV[2] holds.
--
-- If ARGV[5] is '1', the run has failed, for the reason ARGV[6]. The call is then tried as often as
-- its record says. The record's pause precedes the second try, and doubles each time, up to an
-- hour. After the last try the call is set aside in the hash KEYS[3], with its generation ARGV[4],
-- as "attempts generation limit pause length-of-reason reason arguments".
--
-- Follows `Book::finish` in lock-core/src/table/book.rs. Returns 'lost', 'done', 'again', 'aside',
-- or the milliseconds until the next try.

local id = ARGV[1]
local record = read_record(id)
local micros = now_in_microseconds()
-- Fails on a key of another type, before anything is written.
redis.call('HGET', KEYS[3], id)
if not record or redis.call('GET', KEYS[4]) ~= ARGV[2] then
  return 'lost'
end
-- Freed in this script: in a step of its own, the lock would be held for no reason in between.
redis.call('DEL', KEYS[4])
if record.call ~= tonumber(ARGV[3]) then
  redis.call('ZADD', KEYS[1], record.due, id)
  return 'again'
end
if ARGV[5] ~= '1' then
  remove_record(id)
  return 'done'
end
record.attempts = record.attempts + 1
if record.attempts >= record.limit then
  local text = string.format('%.0f %s %.0f %.0f %d ',
    record.attempts, ARGV[4], record.limit, record.pause, #ARGV[6])
  redis.call('HSET', KEYS[3], id, text .. ARGV[6] .. record.arguments)
  redis.call('PEXPIRE', KEYS[3], KEEP)
  remove_record(id)
  return 'aside'
end
-- A power is a float, which Lua 5.4 (Dragonfly) does not convert to an integer.
local pause = math.floor(record.pause * 2 ^ math.min(record.attempts - 1, 20))
pause = math.min(pause, 60 * 60 * 1000)
record.due = math.floor(micros / 1000) + pause
write_record(id, record, record.due)
return pause
