-- The snapshot of this transaction, and its origin. A snapshot consists of transaction ids. The ids have no meaning on
-- another server, or on a promoted replica that lacks the last ids. The origin has four parts:
-- - The start of the server's process identifies the run of the server.
-- - The last reset of the statistics changes if a backend crashes. The server's process then stays, but the server
--   recovers from the write-ahead log, gives out again the ids that the log lacks, and resets the statistics.
-- - The id of the database differs if another database got this database's name. The reader has seen none of its
--   changes, although their ids may be in the snapshot.
-- - The newest trigger changes if a dump is restored, because a restore creates new triggers after it has copied the
--   data. The data of a dump contains older ids.
select
    pg_current_snapshot()::text as snapshot,
    array[
        extract(epoch from pg_postmaster_start_time()),
        (select extract(epoch from stats_reset) from pg_stat_bgwriter),
        (select oid::bigint from pg_database where datname = current_database()),
        (
            select max(oid)::bigint from pg_trigger
            where tgrelid in ('public.portfolio'::regclass, 'public.position'::regclass)
        )
    ]::text as origin
