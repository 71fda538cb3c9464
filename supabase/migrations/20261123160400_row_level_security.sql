-- Owners read their own rows. Only the service role and the owner of the tables can write rows, or read the rows of all
-- users.

alter table portfolio enable row level security;
alter table position enable row level security;
alter table portfolio_live enable row level security;
alter table portfolio_intraday enable row level security;
alter table portfolio_history enable row level security;
alter table price_live enable row level security;
alter table price_eod enable row level security;
alter table lease_fence enable row level security;
alter table job_run enable row level security;
alter table market_override enable row level security;

create policy owner_reads on portfolio for select to authenticated
    using (user_id = (select auth.uid()));
create policy owner_reads on position for select to authenticated
    using (portfolio_id in (select id from portfolio where user_id = (select auth.uid())));
create policy owner_reads on portfolio_live for select to authenticated
    using (portfolio_id in (select id from portfolio where user_id = (select auth.uid())));
create policy owner_reads on portfolio_intraday for select to authenticated
    using (portfolio_id in (select id from portfolio where user_id = (select auth.uid())));
create policy owner_reads on portfolio_history for select to authenticated
    using (portfolio_id in (select id from portfolio where user_id = (select auth.uid())));

-- Supabase grants all rights on new tables and functions to everybody. Policies do not cover all of them, such as
-- TRUNCATE.
revoke all on
    portfolio, position, portfolio_live, portfolio_intraday, portfolio_history,
    price_live, price_eod, lease_fence, job_run, market_override
from anon, authenticated;
grant select on portfolio, position, portfolio_live, portfolio_intraday, portfolio_history to authenticated;
grant all on
    portfolio, position, portfolio_live, portfolio_intraday, portfolio_history,
    price_live, price_eod, lease_fence, job_run, market_override
to service_role;

revoke all on function
    make_partition(regclass, date, date), make_intraday_partition(date), make_history_partition(date),
    drop_intraday_partitions(date), forget_portfolio_values()
from public, anon, authenticated;
