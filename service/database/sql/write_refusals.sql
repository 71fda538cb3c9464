-- $1 symbols, $2 consecutive refusals, $3 when each was refused, $4 retry times, $5 token.
-- Insert or update the refusals, in key order.
insert into public.symbol_refusal (symbol, refusals, refused_at, retry_at, token)
select row.symbol, row.refusals, row.refused_at, row.retry_at, $5
from unnest($1::text[], $2::integer[], $3::timestamptz[], $4::timestamptz[])
    as row (symbol, refusals, refused_at, retry_at)
order by row.symbol
on conflict (symbol) do update set
    refusals = excluded.refusals,
    refused_at = excluded.refused_at,
    retry_at = excluded.retry_at,
    token = excluded.token
