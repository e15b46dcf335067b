-- Ends the window KEYS[1] before its time. If ARGV[1] is 'flush', it is due now, and its newest
-- caller is notified. If it is 'cancel', its calls count as covered without a run, and all are
-- notified.
--
-- Follows `Window::flush` and `Window::cancel` in lock-core/src/table/window.rs.
--
-- Returns 1 if a call waits in the window, else 0.

local window, clients = read_window(KEYS[1])
local now = now_in_microseconds()
local moved = follow_clock(window, clients, now)
if window.newest <= window.ran then
  return 0
end
if ARGV[1] == 'flush' then
  window.due = now
  write_window(KEYS[1], window, clients, moved)
  tell(window.newest_caller, 'due')
else
  local told = waiting(window, clients, '', window.newest)
  -- This includes the calls up to now that the store was not told of.
  window.newest = math.max(window.newest, now)
  window.ran, window.ran_by, window.ran_at = window.newest, '', 0
  write_window(KEYS[1], window, clients, moved)
  for _, other in ipairs(told) do
    tell(other, 'look')
  end
end
return 1
