-- The first line whose owner is not the portfolio's owner.
select imported.line
from imported
join public.portfolio on portfolio.id = imported.portfolio_id
where portfolio.user_id <> imported.user_id
order by imported.line
limit 1
