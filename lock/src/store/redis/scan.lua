-- Returns one page of the keys of the type ARGV[4] whose names match the pattern ARGV[2], from the
-- cursor ARGV[1] on. ARGV[3] is roughly how many keys the server looks at. The script accesses no
-- key, so KEYS is empty, and in a Cluster each node is asked.
--
-- Returns {cursor, keys}: the cursor is '0' after the last page.

return redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3], 'TYPE', ARGV[4])
