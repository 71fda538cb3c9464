-- $1 portfolios, $2 date, $3 kind, $4 values, $5 priced fractions, $6 stale, $7 origin of a new row, $8 whether to settle
-- rows that are there, $9 token. A settled row that is no different stays as it is: no revision without a change.
insert into portfolio_history as history (portfolio_id, date, kind, value, priced_fraction, stale, origin, token)
select row.portfolio_id, $2, $3, row.value, row.priced_fraction, row.stale, $7, $9
from unnest($1::uuid[], $4::numeric[], $5::numeric[], $6::boolean[]) as row (portfolio_id, value, priced_fraction, stale)
where exists (select from portfolio where id = row.portfolio_id)
on conflict (portfolio_id, date, kind) do update set
    value = excluded.value,
    priced_fraction = excluded.priced_fraction,
    stale = excluded.stale,
    origin = case history.origin when 'captured' then 'settled' else history.origin end,
    revision = history.revision + 1,
    written_at = now(),
    token = excluded.token
    where $8 and (
        history.origin = 'captured'
        or (history.value, history.priced_fraction, history.stale)
            is distinct from (excluded.value, excluded.priced_fraction, excluded.stale)
    )
