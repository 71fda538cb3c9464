-- Insert the portfolios that do not exist. Existing ones stay as they are.
insert into public.portfolio (id, user_id, name)
select distinct on (portfolio_id) portfolio_id, user_id, 'Portfolio'
from imported
order by portfolio_id, line
on conflict (id) do nothing
