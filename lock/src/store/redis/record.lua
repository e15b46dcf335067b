-- The durable calls of a function. KEYS[1] is the order in which its ids have to be looked at: a
-- sorted set by milliseconds of the server's clock. KEYS[2] is the hash of their records, "call
-- first due attempts claimed limit pause arguments", as in `Record` of lock-core/src/table/book.rs.
-- The limit and the pause, in milliseconds, are those of `Retry`.

-- They are kept for a month after the last change.
local KEEP = 30 * 24 * 60 * 60 * 1000

local function now_in_microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The record of an id, if there is one, and when to look at it. Both keys are read, so that a key
-- of another type is an error before anything is written.
local function read_record(id)
  local look_at = tonumber(redis.call('ZSCORE', KEYS[1], id) or '0')
  local text = redis.call('HGET', KEYS[2], id)
  if not text then
    return nil, look_at
  end
  local call, first, due, attempts, claimed, limit, pause, arguments =
    string.match(text, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (.*)$')
  return {
    call = tonumber(call), first = tonumber(first), due = tonumber(due),
    attempts = tonumber(attempts), claimed = tonumber(claimed),
    limit = tonumber(limit), pause = tonumber(pause), arguments = arguments,
  }, look_at
end

local function write_record(id, record, look_at)
  local text = string.format('%.0f %.0f %.0f %.0f %.0f %.0f %.0f ',
    record.call, record.first, record.due, record.attempts, record.claimed,
    record.limit, record.pause)
  redis.call('HSET', KEYS[2], id, text .. record.arguments)
  -- At once: the user may not have the right to the next command, and the key must expire.
  redis.call('PEXPIRE', KEYS[2], KEEP)
  redis.call('ZADD', KEYS[1], look_at, id)
  redis.call('PEXPIRE', KEYS[1], KEEP)
end

local function remove_record(id)
  redis.call('HDEL', KEYS[2], id)
  redis.call('ZREM', KEYS[1], id)
end

-- The record of a call of `id` that is due in `wait` milliseconds, at the latest `latest`
-- milliseconds after the first call that no run has covered, and that is tried again as `retry`
-- says.
local function called(id, arguments, wait, latest, retry, micros)
  local now = math.floor(micros / 1000)
  local known = read_record(id)
  local pending = known and known.claimed ~= known.call
  local first = pending and known.first or now
  local due = now + wait
  if latest then
    due = math.min(due, first + latest)
  end
  return {
    call = math.max(micros, (known and known.call or 0) + 1), first = first, due = due,
    attempts = 0, claimed = known and known.claimed or 0,
    limit = retry.limit, pause = retry.pause, arguments = arguments,
  }
end
