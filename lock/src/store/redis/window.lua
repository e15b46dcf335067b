-- The window of a debounce: a hash. Its fields are those of `Window` in
-- lock-core/src/table/window.rs, all times in microseconds of the server's clock:
--
-- - newest and newest_caller: the time of the newest call, and its token;
-- - ran, ran_by and ran_at: the time up to which a run has covered calls, who ran, and since when;
-- - first, due and clock;
-- - 'of:' and a client's name: that client's own number for its last call, and that call's time.
local function read_window(key)
  local fields = redis.call('HGETALL', key)
  local window, clients = {}, {}
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    if string.sub(name, 1, 3) == 'of:' then
      local number, made = string.match(value, '^(%d+) (%d+)$')
      clients[string.sub(name, 4)] = {number = tonumber(number), made = tonumber(made)}
    elseif name == 'newest_caller' or name == 'ran_by' then
      window[name] = value
    else
      window[name] = tonumber(value)
    end
  end
  for _, name in ipairs({'newest', 'ran', 'ran_at', 'first', 'due', 'clock'}) do
    window[name] = window[name] or 0
  end
  return window, clients
end

-- If the clock was set back, shifts all known times by as much. Returns whether it was.
local function follow_clock(window, clients, now)
  local back = window.clock - now
  window.clock = now
  if back <= 0 then
    return false
  end
  for _, name in ipairs({'newest', 'ran', 'ran_at', 'first', 'due'}) do
    window[name] = math.max(window[name] - back, 0)
  end
  for _, last in pairs(clients) do
    last.made = math.max(last.made - back, 0)
  end
  return true
end

local function now_in_microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The last calls of other clients that were made after the last run and up to a time: the callers
-- that wait to be notified.
local function waiting(window, clients, but, till)
  local tokens = {}
  for client, last in pairs(clients) do
    if client ~= but and last.made > window.ran and last.made <= till then
      tokens[#tokens + 1] = client .. ':' .. string.format('%.0f', last.number)
    end
  end
  return tokens
end

local function write_window(key, window, clients, changed)
  -- One by one: a script cannot unpack thousands of clients.
  for client, last in pairs(clients) do
    if changed == true or changed == client then
      redis.call('HSET', key, 'of:' .. client, string.format('%.0f %.0f', last.number, last.made))
    end
  end
  local fields = {}
  for name, value in pairs(window) do
    fields[#fields + 1] = name
    fields[#fields + 1] = type(value) == 'number' and string.format('%.0f', value) or value
  end
  redis.call('HSET', key, unpack(fields))
end
