-- The queue of a lock: one sorted set, with two members for each waiter.
--
-- - The token, with its ticket: microseconds of the server's clock, larger than all tickets before.
-- - Its mark, with the time in milliseconds until which it is alive: '@' and the token if its
--   client listens to notices, '?' and the token if it polls.
--
-- Tickets are above FIRST_TICKET and times are below, so the waiters are one range of the set and
-- the marks another, each in order.
local FIRST_TICKET = 1000000000000000

-- Milliseconds after which an abandoned queue expires: longer than any waiter is alive.
local QUEUE_LIFE = 20000

local function client_of(token)
  return string.match(token, '^(%x+):%d+$')
end

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Sends a word to the client of a token, if it has one. `pcall`, because a user may be forbidden to
-- publish: its clients then work without notices.
local function tell(token, word)
  local client = client_of(token)
  if client then
    redis.pcall('PUBLISH', '~wake:' .. client, word .. ' ' .. string.sub(token, #client + 2))
  end
end

-- Does the client of a token listen? The server knows at once when a connected process has died. A
-- user that may not ask has to assume that it does.
local function listens(token)
  local client = client_of(token)
  local answer = client and redis.pcall('PUBSUB', 'NUMSUB', '~wake:' .. client)
  return not answer or answer.err or answer[2] > 0
end

-- Will the holder of a lock notify the waiters when it releases the lock? Not if it is a client of
-- another kind, if it is gone, or if its user may not publish, which it shows by listening to a
-- channel for that. A user that may not ask has to assume that it will.
local function notifies(holder)
  local client = client_of(holder)
  if not client then
    return 0
  end
  local channel = '~wake:' .. client
  local answer = redis.pcall('PUBSUB', 'NUMSUB', channel, channel .. ':mute')
  return (answer.err or (answer[2] > 0 and answer[4] == 0)) and 1 or 0
end

-- The first living waiter, if there is one, and its ticket. Also the members of the dead waiters
-- before it, three for each, which the caller removes. Removing a living waiter that has stopped
-- listening does no harm: it knows its ticket, and takes it again. `leaving` is a token that counts
-- as dead.
local function first_waiter(queue, leaving)
  local dead = {}
  local now
  -- As many as one command can remove.
  for i = 0, 999 do
    local found = redis.call('ZRANGEBYSCORE', queue, FIRST_TICKET, '+inf', 'WITHSCORES', 'LIMIT', i, 1)
    local token = found[1]
    if not token then
      return nil, nil, dead
    end
    now = now or milliseconds()
    local listening = tonumber(redis.call('ZSCORE', queue, '@' .. token) or '0')
    local polling = tonumber(redis.call('ZSCORE', queue, '?' .. token) or '0')
    local alive = polling > now or (listening > now and listens(token))
    if alive and token ~= leaving then
      return token, tonumber(found[2]), dead
    end
    dead[#dead + 1] = token
    dead[#dead + 1] = '@' .. token
    dead[#dead + 1] = '?' .. token
  end
  return nil, nil, dead
end

local function remove(queue, dead)
  if #dead > 0 then
    redis.call('ZREM', queue, unpack(dead))
  end
end

-- Hands a lock to a waiter. The removal comes first: it needs no memory, and once a script has
-- written, the server lets it continue even when memory is full.
local function hand_over(key, queue, waiter, dead, window)
  redis.call('ZREM', queue, waiter, '@' .. waiter, '?' .. waiter, unpack(dead))
  redis.call('SET', key, waiter, 'PX', window)
  tell(waiter, 'granted')
end
