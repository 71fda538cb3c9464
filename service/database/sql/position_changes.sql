-- $1 a snapshot, $2 and $3 dates. The portfolios that were changed since that snapshot, and those with positions that
-- became valid after the earlier date, up to the later one. A row that is here to be read, but whose transaction id is not
-- in the snapshot of now, has the id of another server: a dump brought it along.
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
