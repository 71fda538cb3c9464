-- The snapshot of this transaction, and its origin. A snapshot consists of transaction ids. They have no meaning on
-- another server, or on a promoted replica that lacks the last of them. The start of the server's process identifies the
-- server. If a backend crashes, this process stays, but the server recovers from the write-ahead log and gives out again
-- the ids that the log lacks. The recovery also discards the statistics, so the time of their last reset changes.
select
    pg_current_snapshot()::text as snapshot,
    array[
        extract(epoch from pg_postmaster_start_time()),
        (select extract(epoch from stats_reset) from pg_stat_bgwriter)
    ]::text as origin
