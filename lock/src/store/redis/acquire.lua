-- Takes each lock KEYS[2i-1], whose queue is KEYS[2i], for a token, and draws the fences of all
-- that are taken from the counter, which is the last key. ARGV[1] is the longest lease there can
-- be, ARGV[2] the reservation, ARGV[3] how long a waiter is alive, all in milliseconds; ARGV[4]
-- the mark of this client's waiters. Then come, for each lock: the token, the lease in
-- milliseconds, and what to do if another token holds it:
--
--   ''        nothing
--   'w'       join the queue
--   'w' and a number   keep that ticket in the queue; 0 if it is not known
--   '=' and a token    take it over, if that token holds it
--
-- A lock that is free costs one command of the server, and its queue is not looked at: a release
-- hands over, so a lock that is free while somebody waits is one whose lease ran out.
--
-- All locks of a turn go in one script, and not in a pipeline with the draw of the fences behind
-- it, so that nobody comes between a lock and its fence: a lock that is forced free and taken
-- again in that moment would have the smaller fence of the two.
--
-- Answers the first fence, then for each lock: 1 if it was taken, 2 if it was and others wait (the
-- fences are theirs in order); {milliseconds that remain (-1: for ever), ticket in the queue (as
-- text; '' if it is not there), 1 if its holder will tell when it lets go, else 0} if it is held;
-- the error's text if the keys are none of a lock.

local counter = KEYS[#KEYS]
local fence, micros = next_fence(counter)
if not fence then
  return micros
end

local longest, window, life, mark = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]

-- How long the lock of another holder lasts. One of this library never lasts longer than the
-- longest lease: the server's clock was set back after it was taken. Its holder counts on its
-- lease at most, so cutting it is safe. Only keys that carry a token of this library's form:
-- other clients may choose any lease.
local function remaining(key, holder)
  local left = redis.call('PTTL', key)
  local ours = client_of(holder)
  if ours and #ours == 32 and (left > longest or left == -1) then
    redis.call('PEXPIRE', key, longest)
    left = longest
  end
  return left
end

-- What it takes to let a token wait, or go on waiting, at a ticket, or at the end if that is 0.
local function plan_to_wait(queue, token, ticket)
  local last = redis.call('ZRANGE', queue, -1, -1, 'WITHSCORES')
  local kept = redis.call('ZSCORE', queue, token)
  local dead = redis.call('ZRANGEBYSCORE', queue, '-inf', math.floor(micros / 1000), 'LIMIT', 0, 10)
  local highest = tonumber(last[2] or '0')
  local tells = ticket > 0 or kept or highest < FIRST_TICKET
  if kept then
    ticket = tonumber(kept)
  elseif ticket == 0 then
    ticket = math.max(highest + 1, micros)
  end
  local gone = {mark == '@' and '?' .. token or '@' .. token}
  for _, member in ipairs(dead) do
    local waiter = string.sub(member, 2)
    if waiter ~= token then
      gone[#gone + 1] = member
      gone[#gone + 1] = waiter
    end
  end
  return {ticket = ticket, tells = tells, gone = gone}
end

local function wait(queue, token, plan)
  redis.call('ZREM', queue, unpack(plan.gone))
  local alive_until = math.floor(micros / 1000) + life
  redis.call('ZADD', queue, digits(plan.ticket), token, alive_until, mark .. token)
  redis.call('PEXPIRE', queue, QUEUE_LIFE)
  return digits(plan.ticket)
end

-- Takes a lock whose holder is known, and removes the dead at the head of its queue: 1, or 2 if
-- others wait for it.
local function take(key, queue, token, lease, dead)
  local others = redis.call('ZRANGEBYSCORE', queue, FIRST_TICKET, '+inf', 'LIMIT', #dead / 3, 2)
  local contended = #others > 1 or (others[1] and others[1] ~= token)
  redis.call('SET', key, token, 'PX', lease)
  redis.call('ZREM', queue, token, '@' .. token, '?' .. token, unpack(dead))
  return contended and 2 or 1
end

-- One lock that was not free, or whose token may be in the queue: the answer for it.
local function acquire(key, queue, token, lease, what)
  local holder = redis.pcall('GET', key)
  -- A failure further down would be one of the whole batch, which has taken locks by then.
  local queued = (what ~= '' or holder == token) and redis.pcall('ZCARD', queue)
  for _, failure in ipairs({holder, queued}) do
    if type(failure) == 'table' then
      return failure.err
    end
  end
  -- Held by the token: it was handed over, or this is the second request and the answer to the
  -- first was lost. It gets a fresh, larger fence, and its lease begins anew. Or it is taken over.
  if holder and (holder == token or what == '=' .. holder) then
    return take(key, queue, token, lease, {})
  end
  if string.sub(what, 1, 1) ~= 'w' then
    return {holder and remaining(key, holder) or 0, '', 0}
  end
  local ticket = tonumber(string.sub(what, 2)) or 0
  local plan = plan_to_wait(queue, token, ticket)
  if holder then
    -- The holder was told of the first that came, and knows of those that follow; but whoever is
    -- dead may have come in the time of another holder.
    local tells = plan.tells or not first_waiter(queue)
    local notified = notifies(holder)
    local left = remaining(key, holder)
    if tells then
      tell(holder, 'wanted')
    end
    return {left, wait(queue, token, plan), notified}
  end
  local first, its_ticket, dead = first_waiter(queue)
  if not first or first == token or (ticket > 0 and ticket < its_ticket) then
    return take(key, queue, token, lease, dead)
  end
  -- A lease has run out, and somebody else is next.
  local notified = notifies(first)
  hand_over(key, queue, first, dead, window)
  return {tonumber(window), wait(queue, token, plan), notified}
end

local answer = {digits(fence)}
local taken = 0
for i = 1, (#KEYS - 1) / 2 do
  local key, token, lease, what = KEYS[2 * i - 1], ARGV[3 * i + 2], ARGV[3 * i + 3], ARGV[3 * i + 4]
  if (what == '' or what == 'w') and redis.call('SET', key, token, 'NX', 'PX', lease) then
    answer[i + 1] = 1
  else
    answer[i + 1] = acquire(key, KEYS[2 * i], token, lease, what)
  end
  if type(answer[i + 1]) == 'number' then
    taken = taken + 1
  end
end
if taken > 0 then
  redis.call('SET', counter, digits(fence + taken - 1))
end
return answer
