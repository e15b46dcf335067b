-- One page of the keys that have the type ARGV[4] and a name of the pattern ARGV[2], from the cursor
-- ARGV[1] on; ARGV[3] is how many keys the server looks at, about. No key is touched: so there is
-- none in KEYS, and in a Cluster it is asked of each node.
--
-- Answers {cursor, keys}: the cursor is '0' behind the last page.

return redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3], 'TYPE', ARGV[4])
