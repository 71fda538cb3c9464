-- $1 symbols, $2 an instant.
-- Delete the refusals of these symbols, and those with a retry time before the instant: no portfolio holds those
-- symbols any more.
delete from public.symbol_refusal where symbol = any($1::text[]) or retry_at < $2
