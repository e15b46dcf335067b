-- The queue of a lock: one sorted set, with two members for each waiter.
--
-- - The token, at its place: microseconds of the server's clock, larger than all places before.
-- - Its mark, at the time until which it is alive, in milliseconds: '@' and the token if its client
--   listens to wake-ups, '?' and the token if it polls.
--
-- Places are above FIRST_PLACE and times below, so the waiters are one range of the set and the
-- marks another, each in order.
local FIRST_PLACE = 1000000000000000

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
-- to publish: its clients do without wake-ups then.
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

-- The first living waiter, if there is one, with its place; and what is to be removed when it gets
-- the lock: its own members, and those of the dead before it. A waiter that does not listen any
-- more is no loss even if it lives: it knows its place, and takes it again. `leaving` is a token
-- that does not count.
local function first_waiter(queue, leaving)
  local gone = {}
  local now
  -- No more than can be removed with one command.
  for i = 0, 999 do
    local found = redis.call('ZRANGEBYSCORE', queue, FIRST_PLACE, '+inf', 'WITHSCORES', 'LIMIT', i, 1)
    local token = found[1]
    if not token then
      return nil, nil, gone
    end
    now = now or milliseconds()
    local listening = tonumber(redis.call('ZSCORE', queue, '@' .. token) or '0')
    local polling = tonumber(redis.call('ZSCORE', queue, '?' .. token) or '0')
    gone[#gone + 1] = token
    gone[#gone + 1] = '@' .. token
    gone[#gone + 1] = '?' .. token
    local alive = polling > now or (listening > now and listens(token))
    if alive and token ~= leaving then
      return token, tonumber(found[2]), gone
    end
  end
  return nil, nil, gone
end

-- Of what is to be removed when a waiter gets the lock, what is so all the same if it does not: the
-- members of the dead, without the last three, which are its own. All of it if there is no waiter.
local function dead_before(waiter, gone)
  for _ = 1, waiter and 3 or 0 do
    table.remove(gone)
  end
  return gone
end

-- Gives a lock to a waiter. The removal comes first: it needs no memory, and once a script has
-- written, the server lets it go on even when memory is full.
local function hand_over(key, queue, waiter, gone, window)
  redis.call('ZREM', queue, unpack(gone))
  redis.call('SET', key, waiter, 'PX', window)
  tell(waiter, 'granted')
end
