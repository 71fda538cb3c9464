-- $1 portfolios.
-- The ids of those portfolios that exist, in key order.
select id from public.portfolio where id = any($1::uuid[]) order by id
