-- $1 a portfolio or null.
-- The portfolios after that portfolio, or all portfolios, in key order.
select id from public.portfolio where ($1::uuid is null or id > $1) order by id
