-- Frees each lock KEYS[i] that is held by the token ARGV[2i-1]: now, or in ARGV[2i] milliseconds
-- if that is not '0' (`hold_at_least`).
--
-- DEL and PEXPIRE work when the server's memory is full. `pcall`, so that a key of another type
-- under one id does not keep the other locks of the batch from being freed.
--
-- Answers 1 for each lock that was the token's, else 0.

local ours = {}
for i, key in ipairs(KEYS) do
  ours[i] = redis.pcall('GET', key) == ARGV[2 * i - 1] and 1 or 0
end
for i, key in ipairs(KEYS) do
  if ours[i] == 1 then
    if ARGV[2 * i] == '0' then
      redis.call('DEL', key)
    else
      redis.call('PEXPIRE', key, ARGV[2 * i])
    end
  end
end
return ours
