-- $1 process ids of sessions.
-- The ids of the sessions that execute a statement now, even if the statement waits for a lock. Sessions that wait for
-- their client to send a request or to read an answer are left out.
select pid
from pg_catalog.pg_stat_activity
where pid = any($1::int[]) and state = 'active' and wait_event_type is distinct from 'Client'
