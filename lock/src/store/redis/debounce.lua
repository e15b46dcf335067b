-- Registers the call of the token ARGV[1], made ARGV[2] milliseconds ago, in the window KEYS[1].
-- Lets it run if its burst is over and no other run is in progress: takes the run's lock KEYS[2]
-- for ARGV[6] milliseconds and draws a fence from the counter KEYS[3].
--
-- The window is due ARGV[3] milliseconds after its newest call, at the latest ARGV[4] milliseconds
-- after its first ('' for no such bound). For the first call of a burst it is due at once if
-- ARGV[5] is '1'. It is kept for ARGV[7] milliseconds beyond that, as a tombstone. ARGV[8] is how
-- many milliseconds late the newest caller may be before another one may run in its place.
--
-- Follows `Window::ask` and `Window::begin` in lock-core/src/table/window.rs.
--
-- Returns {'granted', fence}, {'superseded'}, {'not yet', milliseconds, 1 if it is the newest} or
-- {'running', remaining milliseconds of that run's lock}.

local token = ARGV[1]
local client, number = string.match(token, '^(.*):(%d+)$')
if not client then
  client, number = token, '0'
end
number = tonumber(number)
local age, wait, limit = ARGV[2] * 1000, ARGV[3] * 1000, tonumber(ARGV[4])
local leading, keep = ARGV[5] == '1', tonumber(ARGV[7])

local window, clients = read_window(KEYS[1])
local running = redis.call('GET', KEYS[2])
local run_left = running and redis.call('PTTL', KEYS[2]) or 0
local fence, now = next_fence(KEYS[3])
if not fence then
  return now
end

local moved = follow_clock(window, clients, now)
local kept = redis.call('PTTL', KEYS[1])
local known = clients[client]
local gone = {}

-- Registers a call that was not known, and returns the time at which it was made.
local function register()
  local made = math.max(now - age, (known and known.made or 0) + 1)
  if age == 0 or made == window.newest then
    made = math.max(made, window.newest + 1)
  end
  if made > window.newest and made > window.ran then
    if window.newest <= window.ran then
      -- The first call of its window. If calls keep coming, the window began with the previous run.
      local goes_on = window.ran > 0 and made - window.ran <= wait
      window.first = goes_on and window.ran_at > 0 and window.ran_at or made
      local count = 0
      for _ in pairs(clients) do
        count = count + 1
      end
      -- A client that has not called for a minute will not repeat a request.
      for other, last in pairs(count > 100 and clients or {}) do
        if last.made + 60000000 <= now then
          gone[#gone + 1] = other
        end
      end
      window.due = leading and not goes_on and now or made + wait
    else
      window.due = made + wait
    end
    if limit then
      window.due = math.min(window.due, window.first + limit * 1000)
    end
    window.newest = made
    window.newest_caller = token
  end
  clients[client] = {number = number, made = made}
  return made
end

local is_newest
-- Returns 'superseded', 'due', or how many microseconds are left.
local function ask()
  if known and number < known.number then
    return 'superseded'
  end
  local made = known and number == known.number and known.made or register()
  if made <= window.ran then
    return window.ran_by == token and 'due' or 'superseded'
  end
  is_newest = window.newest_caller == token
  local due = window.due + ARGV[8] * 1000
  if is_newest then
    -- The same call may ask with a shorter wait, or with none after a flush.
    window.due = math.min(window.due, now + wait)
    due = window.due
  end
  return now < due and due - now or 'due'
end

local verdict = ask()
local answer, told
-- The run may already be ours, if the answer to an earlier claim was lost.
if running == token or (verdict == 'due' and not running) then
  told = {}
  -- A run that is granted again covers what it covered before, even if its burst was cancelled
  -- since: a call that came in the meantime may be newer.
  if running ~= token and window.ran_by ~= token then
    local covered = math.max(window.newest, clients[client] and clients[client].made or 0)
    told = waiting(window, clients, client, covered)
    window.ran_at = now
    window.newest, window.ran, window.ran_by = covered, covered, token
  end
  answer = {'granted', digits(fence)}
elseif verdict == 'superseded' then
  answer = {'superseded'}
elseif verdict == 'due' then
  -- The newest caller is alive, because it asks. An older one must not run in its place once the
  -- run is over merely because it asks first.
  if window.newest_caller == token then
    window.due = math.max(window.due, now)
  end
  -- A waiting call keeps the window for the rest of the run: that may be longer than `keep`.
  keep = keep + math.max(run_left, 0)
  answer = {'running', run_left}
else
  answer = {'not yet', math.ceil(verdict / 1000), is_newest and 1 or 0}
end

if window.newest > window.ran then
  keep = keep + math.max(math.ceil((window.due - now) / 1000), 0)
end
for _, other in ipairs(gone) do
  redis.call('HDEL', KEYS[1], 'of:' .. other)
  clients[other] = nil
end
write_window(KEYS[1], window, clients, moved or client)
-- A tombstone is never kept for less time than an earlier request has asked for.
redis.call('PEXPIRE', KEYS[1], math.max(keep, kept))
if told then
  redis.call('SET', KEYS[2], token, 'PX', ARGV[6])
  redis.call('SET', KEYS[3], digits(fence))
  for _, other in ipairs(told) do
    tell(other, 'look')
  end
end
return answer
