-- $1 portfolio.
-- The number of entries, and the number of symbols with an open or future position. A symbol has no such position if
-- its last entry closes the position on or before today's date in New York. The order of the key's index saves a sort.
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
