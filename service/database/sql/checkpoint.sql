-- The snapshot of this transaction, and the start time of the server process that gave it. A snapshot consists of
-- transaction ids. These ids mean nothing to another server, or to a promoted replica that lacks the last ones.
select
    pg_current_snapshot()::text as snapshot,
    (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint as server
