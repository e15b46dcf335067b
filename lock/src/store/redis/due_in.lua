-- Returns the milliseconds until the call that waits in the window KEYS[1] is due; -1 if no call
-- waits.
--
-- Follows `Window::due_in` in lock-core/src/table/window.rs.

local window, clients = read_window(KEYS[1])
local now = now_in_microseconds()
follow_clock(window, clients, now)
if window.newest <= window.ran then
  return -1
end
return math.max(math.floor((window.due - now) / 1000), 0)
