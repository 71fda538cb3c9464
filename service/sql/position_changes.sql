-- $1 a snapshot, $2 and $3 dates. The portfolios that were changed since that snapshot, and those with positions that
-- became valid after the earlier date, up to the later one; and the snapshot that this is true of.
select pg_current_snapshot()::text as seen, array(
    select portfolio_id
    from position_change
    where xid >= pg_snapshot_xmin($1::text::pg_snapshot) and not pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
    union
    select portfolio_id
    from position
    where valid_from > least($2::date, $3::date) and valid_from <= greatest($2::date, $3::date)
) as changed
