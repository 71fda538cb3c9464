-- The snapshot of this transaction, and its origin. A snapshot consists of transaction ids. They have no meaning on
-- another server, or on a promoted replica that lacks the last of them. The start of the server's process identifies the
-- server. If a backend crashes, this process stays, but the server recovers from the write-ahead log and gives out again
-- the ids that the log lacks. The recovery also discards the statistics, so the time of their last reset changes.
-- A restored dump contains older ids too. A restore creates new triggers after it has copied the data. If another
-- database got this database's name, the id of the database differs.
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
