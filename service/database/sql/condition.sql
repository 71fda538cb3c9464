-- The condition of the session: whether it can write, and the server's clock.
select
    pg_catalog.pg_is_in_recovery() as standby,
    pg_catalog.current_setting('transaction_read_only')::boolean as read_only,
    pg_catalog.clock_timestamp() as clock
