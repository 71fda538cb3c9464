-- $1 symbols, $2 an instant.
-- Delete the refusals of these symbols, and every refusal with a retry time before the instant.
delete from public.symbol_refusal where symbol = any($1::text[]) or retry_at < $2
