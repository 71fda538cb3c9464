-- $1 portfolios.
-- The portfolios of this list that exist, in key order.
select id from public.portfolio where id = any($1::uuid[]) order by id
