-- $1 portfolio. Its entries, and of its symbols those that are held or will be: whose last entry is no close of today, the
-- exchange's, or of a day before. In the order of the key's index, which spares a sort.
select
    count(*) as entries,
    count(*) filter (
        where next is null and (units <> 0 or valid_from > (now() at time zone 'America/New_York')::date)
    ) as open
from (
    select units, valid_from, lead(valid_from) over (partition by symbol order by valid_from) as next
    from public.position
    where portfolio_id = $1
) as entry
