-- $1 symbols, $2 an instant. These refusals, and those that were due before that: nobody holds their symbols any more.
delete from public.symbol_refusal where symbol = any($1::text[]) or retry_at < $2
