-- Takes each lock KEYS[2i-1], whose queue is KEYS[2i], for a token, and draws the fences of all
-- granted locks from the counter, which is the last key. ARGV[1] is the longest possible lease,
-- ARGV[2] the reservation, and ARGV[3] how long a waiter stays alive, all in milliseconds. ARGV[4]
-- is the mark of this client's waiters. Then follow, for each lock: the token, the lease in
-- milliseconds, and what to do if another token holds the lock:
--
--   ''        nothing
--   'w'       join the queue
--   'w' and a number   keep that ticket in the queue; 0 if it is not known
--   '=' and a token    take the lock over, if that token holds it
--
-- Taking a free lock costs one command of the server, and its queue is not looked at: a release
-- hands over, so a lock that is free although somebody waits is one whose lease, or whose
-- `hold_at_least`, ran out.
--
-- All locks of a turn are taken in one script, rather than in a pipeline that draws the fences
-- afterwards, so that nothing runs between the grant of a lock and its fence. If the lock were
-- released by force and taken again in between, the later holder would have the smaller fence.
--
-- Returns the first fence, then one item for each lock:
--
-- - 1 if it was taken, 2 if it was taken and others wait; these locks get consecutive fences, in
--   order;
-- - {remaining milliseconds (-1: no expiry), ticket in the queue (as text; '' if the token is not
--   in it), 1 if the holder will notify the waiters when it releases the lock, else 0} if it is
--   held;
-- - the error's text if the keys are not those of a lock.

local counter = KEYS[#KEYS]
local fence, micros = next_fence(counter)
if not fence then
  return micros
end

local longest, window, life, mark = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]

-- How long the lock of another holder still lasts. No lock of this library lasts longer than the
-- longest lease. If one seems to, the server's clock was set back after it was taken, or its expiry
-- was removed. Its holder relies on its lease at most, so cutting it is safe. This applies only to
-- keys with a token of this library's form: other clients may choose any lease.
local function remaining(key, holder)
  local left = redis.call('PTTL', key)
  local ours = client_of(holder)
  if ours and #ours == 32 and (left > longest or left == -1) then
    redis.call('PEXPIRE', key, longest)
    left = longest
  end
  return left
end

-- Plans how a token waits, or keeps waiting, at a ticket, or at the end of the queue if that is 0.
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

-- Takes a lock whose holder is known, and removes the dead waiters at the head of its queue.
-- Returns 1, or 2 if others wait for the lock.
local function take(key, queue, token, lease, dead)
  local others = redis.call('ZRANGEBYSCORE', queue, FIRST_TICKET, '+inf', 'LIMIT', #dead / 3, 2)
  local contended = #others > 1 or (others[1] and others[1] ~= token)
  redis.call('SET', key, token, 'PX', lease)
  redis.call('ZREM', queue, token, '@' .. token, '?' .. token, unpack(dead))
  return contended and 2 or 1
end

-- The answer for a lock that was not free, or whose token may be in the queue.
local function acquire(key, queue, token, lease, what)
  local holder = redis.pcall('GET', key)
  -- An error further down would fail the whole batch, which may have taken locks by then.
  local queued = (what ~= '' or holder == token) and redis.pcall('ZCARD', queue)
  for _, failure in ipairs({holder, queued}) do
    if type(failure) == 'table' then
      return failure.err
    end
  end
  -- The token holds it: the lock was handed over, or this is the second request and the answer to
  -- the first was lost. The grant gets a fresh, larger fence, and the lease starts again. Or the
  -- lock is taken over.
  if holder and (holder == token or what == '=' .. holder) then
    return take(key, queue, token, lease, {})
  end
  if string.sub(what, 1, 1) ~= 'w' then
    return {holder and remaining(key, holder) or 0, '', 0}
  end
  local ticket = tonumber(string.sub(what, 2)) or 0
  local plan = plan_to_wait(queue, token, ticket)
  if holder then
    -- The holder was told of the first waiter, and so knows that others wait. But if all waiters in
    -- the queue are dead, they may have joined it in the time of another holder.
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
  -- A lease has run out, and another waiter is next.
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
