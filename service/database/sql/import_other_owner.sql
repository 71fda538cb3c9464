-- The first line that gives a portfolio to another user than the one whose it is.
select imported.line
from imported
join public.portfolio on portfolio.id = imported.portfolio_id
where portfolio.user_id <> imported.user_id
order by imported.line
limit 1
