-- The first of the fences that may be drawn now. A hybrid logical clock: larger than the last one,
-- and not below the server's clock, so that it goes on growing when the counter is lost or the
-- clock is set back. It stays below 2^53, where Lua's numbers are exact, until the year 2255,
-- and with it the fencing tokens below 2^63.
local function next_fence(counter)
  local time = redis.call('TIME')
  local micros = time[1] * 1000000 + time[2]
  local last = tonumber(redis.call('GET', counter) or '0')
  -- What is no number is not below anything either.
  if not (last and last < 2 ^ 53 - 2048) then
    return nil, redis.error_reply('LOCK the key ' .. counter .. ' is to count the fences, and holds '
      .. 'no such number: delete it, or use another database')
  end
  return math.max(last + 1, micros), micros
end

-- Lua would write a number of this size as 1.7e+15.
local function digits(number)
  return string.format('%.0f', number)
end
