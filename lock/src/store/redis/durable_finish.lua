-- The run of the call ARGV[3] of the id ARGV[1] has ended, under the run's lock KEYS[4] with the
-- token ARGV[2]. It has failed if ARGV[5] is '1', for the reason ARGV[6]; then it is tried ARGV[7]
-- times in all, the second time in ARGV[8] milliseconds, and twice that each time, an hour at
-- most. After the last try it is set aside in the hash KEYS[3], with its generation ARGV[4], as
-- "attempts generation length-of-reason reason arguments".
--
-- Frees the run's lock. Follows `Book::finish` in core/durable.rs. Answers 'lost', 'done', 'again', 'aside', or the
-- milliseconds until the next try.

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
if record.attempts >= tonumber(ARGV[7]) then
  local text = string.format('%.0f %s %d ', record.attempts, ARGV[4], #ARGV[6])
  redis.call('HSET', KEYS[3], id, text .. ARGV[6] .. record.arguments)
  redis.call('PEXPIRE', KEYS[3], KEEP)
  remove_record(id)
  return 'aside'
end
local pause = ARGV[8] * 2 ^ math.min(record.attempts - 1, 20)
pause = math.min(pause, 60 * 60 * 1000)
record.due = math.floor(micros / 1000) + pause
write_record(id, record, record.due)
return pause
