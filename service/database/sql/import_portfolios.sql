-- The portfolios that are new. One that is there stays as it is.
insert into public.portfolio (id, user_id, name)
select distinct on (portfolio_id) portfolio_id, user_id, 'Portfolio'
from imported
order by portfolio_id, line
on conflict (id) do nothing
