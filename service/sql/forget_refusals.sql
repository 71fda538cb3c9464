-- $1 symbols. These refusals, and those that were due a week ago: nobody holds their symbols any more.
delete from public.symbol_refusal where symbol = any($1::text[]) or retry_at < pg_catalog.now() - interval '7 days'
