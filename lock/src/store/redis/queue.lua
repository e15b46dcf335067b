-- The queue of a lock: one sorted set, with two members for each waiter.
--
-- - The token, at its ticket: microseconds of the server's clock, larger than all tickets before.
-- - Its mark, at the time until which it is alive, in milliseconds: '@' and the token if its client
--   listens to notices, '?' and the token if it polls.
--
-- Tickets are above FIRST_TICKET and times below, so the waiters are one range of the set and the
-- marks another, each in order.
local FIRST_TICKET = 1000000000000000

-- A queue that nobody looks at any more goes by itself: longer than any waiter is alive.
local QUEUE_LIFE = 20000

local function client_of(token)
  return string.match(token, '^(%x+):%d+$')
end

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Sends a word to the client of a token, if it has one. `pcall`, because a user may be forbidden
-- to publish: its clients do without notices then.
local function tell(token, word)
  local client = client_of(token)
  if client then
    redis.pcall('PUBLISH', '~wake:' .. client, word .. ' ' .. string.sub(token, #client + 2))
  end
end

-- Would anybody hear it? The server knows at once when a process has died that it was connected
-- to. One that may not ask has to take it for granted.
local function listens(token)
  local client = client_of(token)
  local answer = client and redis.pcall('PUBSUB', 'NUMSUB', '~wake:' .. client)
  return not answer or answer.err or answer[2] > 0
end

-- Will the holder of a lock tell those who wait when it lets go of it? Not if it is a client of
-- another kind, if it is gone, or if its user may not publish, which it says by listening to a
-- channel for that. One that may not ask has to take it for granted.
local function notifies(holder)
  local client = client_of(holder)
  if not client then
    return 0
  end
  local channel = '~wake:' .. client
  local answer = redis.pcall('PUBSUB', 'NUMSUB', channel, channel .. ':mute')
  return (answer.err or (answer[2] > 0 and answer[4] == 0)) and 1 or 0
end

-- The first living waiter, if there is one, with its ticket; and the members of the dead before it,
-- three for each, which whoever looks removes. A waiter that does not listen any more is no loss
-- even if it lives: it knows its ticket, and takes it again. `leaving` is a token that counts as
-- dead.
local function first_waiter(queue, leaving)
  local dead = {}
  local now
  -- No more than can be removed with one command.
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

-- Gives a lock to a waiter. The removal comes first: it needs no memory, and once a script has
-- written, the server lets it go on even when memory is full.
local function hand_over(key, queue, waiter, dead, window)
  redis.call('ZREM', queue, waiter, '@' .. waiter, '?' .. waiter, unpack(dead))
  redis.call('SET', key, waiter, 'PX', window)
  tell(waiter, 'granted')
end
