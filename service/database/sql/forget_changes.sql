-- $1 a snapshot. Drops what it saw: the next leader begins with a newer one. Drops, too, what another server's transactions
-- left behind (see `position_changes`): their ids would be in the future of this one for years.
delete from public.position_change
where xid < pg_snapshot_xmin($1::text::pg_snapshot) or not pg_visible_in_snapshot(xid, pg_current_snapshot())
