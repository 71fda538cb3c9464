-- $1 a snapshot, $2 and $3 dates.
-- The portfolios that changed since the snapshot, and those with positions that became valid after the earlier date, up
-- to the later one. The third condition leaves out visible rows whose transaction id is not in the present snapshot:
-- such a row came with a dump, and its id is of another server.
select array(
    select portfolio_id
    from public.position_change
    where xid >= pg_snapshot_xmin($1::text::pg_snapshot)
        and not pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
        and pg_visible_in_snapshot(xid, pg_current_snapshot())
    union
    select portfolio_id
    from public.position
    where valid_from > least($2::date, $3::date) and valid_from <= greatest($2::date, $3::date)
) as changed
