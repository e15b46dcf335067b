-- The first fence that may be drawn now, and the time in microseconds. Fences come from a hybrid
-- logical clock: each is larger than the last one and not below the server's clock, so that they
-- keep growing when the counter is lost or the clock is set back. Until the year 2255 they stay
-- below 2^53, where Lua's numbers are exact, and the fencing tokens stay below 2^63.
local function next_fence(counter)
  local time = redis.call('TIME')
  local micros = time[1] * 1000000 + time[2]
  local last = tonumber(redis.call('GET', counter) or '0')
  -- A value that is not a number is refused as well.
  if not (last and last < 2 ^ 53 - 2048) then
    return nil, redis.error_reply('LOCK the key ' .. counter .. ' does not hold a valid number: '
      .. 'delete the key, or use another database')
  end
  return math.max(last + 1, micros), micros
end

-- Lua would write a number of this size as 1.7e+15.
local function digits(number)
  return string.format('%.0f', number)
end
