-- Stores the call of the id ARGV[1] with the arguments ARGV[2]. It is due in ARGV[3] milliseconds,
-- at the latest ARGV[4] milliseconds after the first call that no run has covered ('' for no such
-- bound). If its runs fail, it is tried ARGV[5] times in all, the second time after ARGV[6]
-- milliseconds.
--
-- Follows `Book::call` in lock-core/src/table/book.rs. Returns {number of the call, milliseconds
-- until it is due}.

local micros = now_in_microseconds()
local retry = {limit = tonumber(ARGV[5]), pause = tonumber(ARGV[6])}
local record = called(ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), retry, micros)
write_record(ARGV[1], record, record.due)
return {string.format('%.0f', record.call), math.max(record.due - math.floor(micros / 1000), 0)}
