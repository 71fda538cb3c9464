-- $1 portfolio, $2 first date or null, $3 last date or null, $4 limit.
-- The newest rows, oldest first.
select * from (
    select portfolio_id, date, kind, value, priced_fraction, stale, origin, revision, written_at, token
    from public.portfolio_history
    where portfolio_id = $1 and ($2::date is null or date >= $2) and ($3::date is null or date <= $3)
    order by date desc, kind
    limit $4
) as newest
order by date, kind
