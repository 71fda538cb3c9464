-- $1 portfolio, $2 user.
-- One row if the user owns the portfolio. The row is locked, so that writes to one portfolio happen one after another.
-- This is the weakest lock with that effect: rows that refer to the portfolio can still be written.
select id from public.portfolio where id = $1 and user_id = $2 for no key update
