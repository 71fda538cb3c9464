-- $1 date, $2 kind, $3 origin, $4 token, $5 and $6 the first and last portfolio staged. The staged values that are known.
-- Fails where one of them has a row: then write_history.sql is for them. To look for one before each insert takes half as
-- long as the inserts, and who asks for portfolios without a row hardly ever finds one.
insert into public.portfolio_history (portfolio_id, date, kind, value, priced_fraction, stale, origin, token)
select portfolio_id, $1, $2, value, priced_fraction, stale, $3, $4
from staged_value
where known and exists (select from public.portfolio where id = portfolio_id and id between $5 and $6)
order by portfolio_id
