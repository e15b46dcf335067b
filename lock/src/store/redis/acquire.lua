-- Takes the lock KEYS[1] for the token ARGV[1], for ARGV[2] milliseconds, and draws a fence from
-- the counter KEYS[2].
--
-- ARGV[3] is the token to take it over from ('' to take it if it is free). ARGV[4] is the longest
-- lease there can be, in milliseconds.
--
-- Answers {1, fence} or {0, milliseconds that remain (-1: for ever)}.

local holder = redis.call('GET', KEYS[1])

-- A holder that is the same token is not in the way: its first answer was lost, and this is the
-- second request. It gets a fresh, larger fence, and its lease begins anew.
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then
  local remaining = redis.call('PTTL', KEYS[1])
  local longest = tonumber(ARGV[4])
  -- A lock of this library never lasts longer than that: the server's clock was set back after
  -- it was taken. Its holder counts on its lease at most, so cutting it is safe. Only keys that
  -- carry a token of this library's form: other clients may choose any lease.
  local ours = string.match(holder, '^%x+:%d+$') and string.find(holder, ':', 1, true) == 33
  if ours and (remaining > longest or remaining == -1) then
    redis.call('PEXPIRE', KEYS[1], longest)
    remaining = longest
  end
  return {0, remaining}
end
if not holder and ARGV[3] ~= '' then
  return {0, 0}
end

-- The fence is a hybrid logical clock: larger than the last one, and not below the server's
-- clock, so that it goes on growing when the counter is lost or the clock is set back. It stays
-- below 2^53, where Lua's numbers are exact, until the year 2255.
local time = redis.call('TIME')
local fence = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
if not last then
  return redis.error_reply('ERR the fence counter ' .. KEYS[2] .. ' does not hold a number')
end
if fence <= last then
  fence = last + 1
end

-- Lua would write a number of this size as 1.7e+15.
local text = string.format('%.0f', fence)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], text)
return {1, text}
