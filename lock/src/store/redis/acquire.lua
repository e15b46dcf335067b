-- Takes each lock KEYS[i] for a token, and draws the fences of all that are taken from the counter,
-- which is the last key. ARGV[1] is the longest lease there can be, in milliseconds; then come,
-- for each lock: the token, the lease in milliseconds, and the token to take it over from ('' to
-- take it if it is free, or held by the token already).
--
-- A lock that is free costs one command of the server. All of a turn go in one script, and not in
-- a pipeline with the draw of the fences behind it, so that nobody comes between a lock and its
-- fence: a lock that is forced free and taken again in that moment would have the smaller fence
-- of the two.
--
-- Answers the first fence, then for each lock: 1 if it was taken (the fences are theirs in order);
-- {milliseconds that remain (-1: for ever)} if it is held; the error's text if the key is none of
-- a lock.

-- The fence is a hybrid logical clock: larger than the last one, and not below the server's
-- clock, so that it goes on growing when the counter is lost or the clock is set back. It stays
-- below 2^53, where Lua's numbers are exact, until the year 2255.
local counter = KEYS[#KEYS]
local time = redis.call('TIME')
local fence = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('GET', counter) or '0')
if not last then
  return redis.error_reply('ERR the fence counter ' .. counter .. ' does not hold a number')
end
if fence <= last then
  fence = last + 1
end

local longest = tonumber(ARGV[1])

-- How long the lock of another holder lasts. One of this library never lasts longer than the
-- longest lease: the server's clock was set back after it was taken. Its holder counts on its
-- lease at most, so cutting it is safe. Only keys that carry a token of this library's form:
-- other clients may choose any lease.
local function remaining(key, holder)
  local left = redis.call('PTTL', key)
  local ours = string.match(holder, '^%x+:%d+$') and string.find(holder, ':', 1, true) == 33
  if ours and (left > longest or left == -1) then
    redis.call('PEXPIRE', key, longest)
    left = longest
  end
  return left
end

-- Lua would write a number of this size as 1.7e+15.
local answer = {string.format('%.0f', fence)}
local taken = 0
for i = 1, #KEYS - 1 do
  local key, token, lease, from = KEYS[i], ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local got = from == '' and redis.call('SET', key, token, 'NX', 'PX', lease)
  if not got then
    -- `pcall`, so that a key of another type is an error of this lock alone.
    local holder = redis.pcall('GET', key)
    if type(holder) == 'table' then
      answer[i + 1] = holder.err
    elseif holder and (holder == token or holder == from) then
      -- Held by the token: its first answer was lost, and this is the second request. It gets a
      -- fresh, larger fence, and its lease begins anew. Or it is taken over.
      redis.call('SET', key, token, 'PX', lease)
      got = true
    else
      answer[i + 1] = {holder and remaining(key, holder) or 0}
    end
  end
  if got then
    taken = taken + 1
    answer[i + 1] = 1
  end
end
if taken > 0 then
  redis.call('SET', counter, string.format('%.0f', fence + taken - 1))
end
return answer
