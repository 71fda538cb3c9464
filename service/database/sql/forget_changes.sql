-- $1 a snapshot.
-- Delete the changes that the snapshot has seen. The next leader begins with a newer snapshot. Also delete changes with
-- transaction ids of another server (see position_changes.sql): here these ids would lie in the future for years.
delete from public.position_change
where xid < pg_snapshot_xmin($1::text::pg_snapshot) or not pg_visible_in_snapshot(xid, pg_current_snapshot())
