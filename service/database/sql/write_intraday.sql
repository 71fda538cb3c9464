-- $1 session date, $2 slot, $3 and $4 the first and last portfolio, $5 token. Of the staged values, those between. Fails
-- where one of them has a point of that slot: see replace_intraday.sql.
insert into public.portfolio_intraday (portfolio_id, session_date, slot, value, priced_fraction, stale, token)
select portfolio_id, $1, $2, case when known then value end, priced_fraction, stale, $5
from staged_value
where portfolio_id between $3 and $4 and exists (select from public.portfolio where id = portfolio_id and id between $3 and $4)
order by portfolio_id
