-- $1 session date, $2 slot, $3 and $4 the first and the last portfolio, $5 token.
-- Insert points for the staged values in that range. Fails if the slot has a point already; see replace_intraday.sql.
insert into public.portfolio_intraday (portfolio_id, session_date, slot, value, priced_fraction, stale, token)
select portfolio_id, $1, $2, case when known then value end, priced_fraction, stale, $5
from staged_value
where portfolio_id between $3 and $4 and exists (select from public.portfolio where id = portfolio_id and id between $3 and $4)
order by portfolio_id
