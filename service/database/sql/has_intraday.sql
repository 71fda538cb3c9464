-- $1 date.
-- Whether the partition for that date's intraday points exists. `make_partition` gives the partition its name.
select exists (
    select from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'public.portfolio_intraday'::pg_catalog.regclass
        and c.relname = 'portfolio_intraday_' || pg_catalog.to_char($1::date, 'YYYYMMDD')
)
