-- The snapshot of this transaction, and which run of which server gave it. A server's transaction ids, of which snapshots
-- are made, mean nothing to another server, nor to a replica that was promoted without the last of them.
select
    pg_current_snapshot()::text as snapshot,
    (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint as server
