-- Releases each lock KEYS[2i-1], whose queue is KEYS[2i], for the token ARGV[2i]: hands it to the
-- first living waiter, which has ARGV[1] milliseconds to claim it, or frees it if there is none. If
-- ARGV[2i+1] is not '0' (`hold_at_least`), the lock is kept for that many milliseconds instead.
--
-- A lock that nobody holds is also handed over: its next holder did not claim it. A waiting token
-- leaves the queue.
--
-- DEL, PEXPIRE and ZREM work when the server's memory is full. `pcall`, so that a key of another
-- type under one id does not keep the other locks of the batch from being freed.
--
-- Returns for each lock: 1 if the token held it, plus 2 if it was handed over.

local window = ARGV[1]

-- One lock after the other, each with its reads before its writes: one batch may contain two tokens
-- of one lock, and a token that has left the queue must not be handed the lock afterwards.
local function release(key, queue, token, keep)
  local holder = redis.pcall('GET', key)
  local ours = holder == token
  local first, ticket
  local dead = {}
  local waiting = redis.pcall('ZCARD', queue)
  if type(waiting) ~= 'number' then
    waiting = 0
  elseif waiting > 0 and (ours or not holder) then
    first, ticket, dead = first_waiter(queue, token)
  elseif waiting > 0 and redis.call('ZSCORE', queue, token) then
    waiting = waiting - 2
  end

  if not ours or waiting > 0 then
    redis.pcall('ZREM', queue, token, '@' .. token, '?' .. token)
  end
  if not ours then
    -- The holder may have come between a reservation that passed and this release, and would not
    -- know that others wait.
    if type(holder) == 'string' and waiting > 0 then
      tell(holder, 'wanted')
    end
  end
  local kept = ours and keep ~= '0'
  if first and not kept then
    hand_over(key, queue, first, dead, window)
    return ours and 3 or 2
  end
  remove(queue, dead)
  if kept then
    redis.call('PEXPIRE', key, keep)
    -- The waiter only knows the end of the lease, which may be later.
    if first then
      tell(first, 'look')
    end
    return 1
  end
  if ours then
    redis.call('DEL', key)
    return 1
  end
  return 0
end

local keys, queues = {}, {}
for i = 1, #KEYS / 2 do
  keys[i], queues[i] = KEYS[2 * i - 1], KEYS[2 * i]
end
local answer = {}

if redis.call('EXISTS', unpack(queues)) > 0 then
  for i = 1, #keys do
    answer[i] = release(keys[i], queues[i], ARGV[2 * i], ARGV[2 * i + 1])
  end
  return answer
end

-- Usually nobody waits for any of them, and three commands are enough for the whole batch. MGET
-- treats a key of another type as missing.
local holders = redis.call('MGET', unpack(keys))
local free = {}
for i = 1, #keys do
  local keep = ARGV[2 * i + 1]
  answer[i] = 0
  if holders[i] == ARGV[2 * i] then
    answer[i] = 1
    if keep ~= '0' then
      redis.call('PEXPIRE', keys[i], keep)
    else
      free[#free + 1] = keys[i]
    end
  end
end
if #free > 0 then
  redis.call('DEL', unpack(free))
end
return answer
