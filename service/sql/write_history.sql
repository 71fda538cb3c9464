-- $1 date, $2 kind, $3 origin of a new row, $4 whether to settle rows that are there, $5 token. The staged values that are
-- known. A settled row that is no different stays as it is: no revision without a change.
insert into portfolio_history as history (portfolio_id, date, kind, value, priced_fraction, stale, origin, token)
select portfolio_id, $1, $2, value, priced_fraction, stale, $3, $5
from staged_value
where known and exists (select from portfolio where id = portfolio_id)
order by portfolio_id
on conflict (portfolio_id, date, kind) do update set
    value = excluded.value,
    priced_fraction = excluded.priced_fraction,
    stale = excluded.stale,
    origin = case history.origin when 'captured' then 'settled' else history.origin end,
    revision = history.revision + 1,
    written_at = now(),
    token = excluded.token
    where $4 and (
        history.origin = 'captured'
        or (history.value, history.priced_fraction, history.stale)
            is distinct from (excluded.value, excluded.priced_fraction, excluded.stale)
    )
