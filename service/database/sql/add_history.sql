-- $1 date, $2 kind, $3 origin, $4 token, $5 and $6 the first and the last staged portfolio.
-- Insert the staged values that are known. Fails if a portfolio has a row already; use write_history.sql then. A check
-- for a row before each insert would increase the inserts' time by half, and a row rarely exists.
insert into public.portfolio_history (portfolio_id, date, kind, value, priced_fraction, stale, origin, token)
select portfolio_id, $1, $2, value, priced_fraction, stale, $3, $4
from staged_value
where known and exists (select from public.portfolio where id = portfolio_id and id between $5 and $6)
order by portfolio_id
