-- The run of the call ARGV[3] of the id ARGV[1] has ended, under the run's lock KEYS[4] with the
-- token ARGV[2]. It has failed if ARGV[5] is '1', for the reason ARGV[6]; then it is tried as often
-- as its record says, with the pause of that before the second try, and twice that each time, an
-- hour at most. After the last try it is set aside in the hash KEYS[3], with its generation
-- ARGV[4], as "attempts generation limit pause length-of-reason reason arguments".
--
-- Frees the run's lock. Follows `Book::finish` in lock-core/src/table/book.rs. Answers 'lost', 'done', 'again',
-- 'aside', or the milliseconds until the next try.

local id = ARGV[1]
local record = read_record(id)
local micros = now_in_microseconds()
-- Fails on a key of another type, before anything is written.
redis.call('HGET', KEYS[3], id)
if not record or redis.call('GET', KEYS[4]) ~= ARGV[2] then
  return 'lost'
end
-- The lock is free with that: in between, nobody finds it taken for no reason.
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
-- A power is a float, which Lua 5.4 (Dragonfly) does not turn into an integer by itself.
local pause = math.floor(record.pause * 2 ^ math.min(record.attempts - 1, 20))
pause = math.min(pause, 60 * 60 * 1000)
record.due = math.floor(micros / 1000) + pause
write_record(id, record, record.due)
return pause
