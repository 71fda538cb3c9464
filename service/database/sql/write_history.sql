-- $1 date, $2 kind, $3 origin of a new row, $4 existing rows to overwrite: 'none', 'stale' or 'all', $5 token, $6 and
-- $7 the first and the last staged portfolio.
-- Write the staged values that are known. Returns the number of rows written, of rows added, and of rows whose value,
-- priced fraction or staleness changed. The other written rows only became settled. A replaced value is kept as a
-- revision. A row without a change stays as it is, unless it becomes settled.
with replaced as (
    insert into public.portfolio_history_revision (
        portfolio_id, date, kind, revision, value, priced_fraction, stale, origin, written_at, token
    )
    select
        there.portfolio_id, $1, $2, there.revision, there.value, there.priced_fraction, there.stale, there.origin,
        there.written_at, there.token
    from staged_value as row
    cross join lateral ( -- the limit ensures a single index access for each row, independent of the statistics
        select * from public.portfolio_history where portfolio_id = row.portfolio_id and date = $1 and kind = $2 limit 1
    ) as there
    where $4 <> 'none' and row.known and ($4 = 'all' or there.stale)
        and (there.value, there.priced_fraction, there.stale)
            is distinct from (row.value, row.priced_fraction, row.stale)
    order by row.portfolio_id
    returning 1
),
written as (
    insert into public.portfolio_history as history (portfolio_id, date, kind, value, priced_fraction, stale, origin, token)
    select portfolio_id, $1, $2, value, priced_fraction, stale, $3, $5
    from staged_value
    where known and exists (select from public.portfolio where id = portfolio_id and id between $6 and $7)
    order by portfolio_id
    on conflict (portfolio_id, date, kind) do update set
        value = excluded.value,
        priced_fraction = excluded.priced_fraction,
        stale = excluded.stale,
        origin = case history.origin when 'captured' then 'settled' else history.origin end,
        revision = history.revision + 1,
        written_at = now(),
        token = excluded.token
        where ($4 = 'all' and history.origin = 'captured')
            or (
                ($4 = 'all' or ($4 = 'stale' and history.stale))
                and (history.value, history.priced_fraction, history.stale)
                    is distinct from (excluded.value, excluded.priced_fraction, excluded.stale)
            )
    returning revision
)
select count(*) as rows, count(*) filter (where revision = 1) as added, (select count(*) from replaced) as changed
from written
