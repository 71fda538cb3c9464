-- $1 a snapshot.
-- Delete the changes of transactions that are older than every transaction under way at the snapshot. The snapshot has
-- seen them, and the next leader begins with a newer snapshot. Also delete changes with transaction ids of another
-- server (see position_changes.sql): here these ids would lie in the future for years.
delete from public.position_change
where xid < pg_snapshot_xmin($1::text::pg_snapshot) or not pg_visible_in_snapshot(xid, pg_current_snapshot())
