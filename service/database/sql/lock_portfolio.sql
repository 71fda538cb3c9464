-- $1 portfolio, $2 user. One row if it is that user's; two writes to one portfolio then follow each other. The lock is the
-- weakest that does so: what refers to the portfolio is written meanwhile.
select id from public.portfolio where id = $1 and user_id = $2 for no key update
