-- $1 portfolios, $2 session date, $3 slot, $4 values, $5 priced fractions, $6 stale, $7 token.
insert into portfolio_intraday (portfolio_id, session_date, slot, value, priced_fraction, stale, token)
select row.portfolio_id, $2, $3, row.value, row.priced_fraction, row.stale, $7
from unnest($1::uuid[], $4::numeric[], $5::numeric[], $6::boolean[]) as row (portfolio_id, value, priced_fraction, stale)
where exists (select from portfolio where id = row.portfolio_id)
on conflict (portfolio_id, session_date, slot) do update set
    value = excluded.value,
    priced_fraction = excluded.priced_fraction,
    stale = excluded.stale,
    token = excluded.token
