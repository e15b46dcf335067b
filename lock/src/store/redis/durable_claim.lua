-- Lets the call of the id ARGV[1] run, if it is due and no other run is in progress: takes the
-- run's lock KEYS[3] with the token ARGV[2] for ARGV[3] milliseconds and draws a fence from the
-- counter KEYS[4].
--
-- Follows `Book::claim` in lock-core/src/table/book.rs.
--
-- Returns {'gone'}, {'not yet', milliseconds}, {'running', remaining milliseconds of that run's
-- lock} or {'granted', fence, number of the call, attempt, arguments}.

local id, token, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local record, look_at = read_record(id)
local running = redis.call('GET', KEYS[3])
local left = running and redis.call('PTTL', KEYS[3]) or 0
local fence, micros = next_fence(KEYS[4])
if not fence then
  return micros
end
local now = math.floor(micros / 1000)

if not record then
  redis.call('ZREM', KEYS[1], id)
  return {'gone'}
end
-- The run may already be ours, if the answer to an earlier claim was lost.
if running ~= token then
  if look_at > now then
    return {'not yet', look_at - now}
  end
  if running then
    redis.call('ZADD', KEYS[1], now + math.max(left, 1), id)
    return {'running', left}
  end
end
record.claimed = record.call
-- If its runner dies, the call is due again when the run's lock expires.
write_record(id, record, now + lease)
redis.call('SET', KEYS[3], token, 'PX', lease)
redis.call('SET', KEYS[4], digits(fence))
return {'granted', digits(fence), digits(record.call), record.attempts + 1, record.arguments}
