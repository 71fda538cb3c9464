-- $1 a snapshot. Drops what it saw: whoever leads next begins with a newer one.
delete from position_change where xid < pg_snapshot_xmin($1::text::pg_snapshot)
