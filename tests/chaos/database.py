"""The accepted writes to the watched tables and the claims of the fence, in commit order.

Triggers record both in the table `chaos_write`, so no client can leave a write out. The writer of `tests.chaos.api`
inserts its rows into this table itself.
"""

from dataclasses import dataclass

import asyncpg

from service.database.fenced_writes import FencedWrites

ACCEPTED = """
create table chaos_write (
    id bigserial primary key,
    place bigint,
    lease text not null,
    token bigint not null,
    via text not null,
    at timestamptz
);
create sequence chaos_place;

-- Runs for each row at the end of its transaction. The lock lasts until the commit, so places are in commit order.
create function chaos_number() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock(867411);
    update chaos_write set place = nextval('chaos_place'), at = clock_timestamp() where id = new.id;
    return null;
end $$;
create constraint trigger number_it after insert on chaos_write deferrable initially deferred
    for each row execute function chaos_number();

create function chaos_note() returns trigger language plpgsql as $$
begin
    insert into chaos_write (lease, token, via) select distinct tg_argv[0], token, tg_table_name from written;
    return null;
end $$;

create function chaos_claim() returns trigger language plpgsql as $$
begin
    insert into chaos_write (lease, token, via) values (new.lease, new.token, 'claim');
    return null;
end $$;
create trigger chaos_claim after insert or update on lease_fence for each row execute function chaos_claim();
"""

NOTE = """
create trigger chaos_{what} after {what} on {table} referencing new table as written
    for each statement execute function chaos_note('{lease}')
"""

CLAIM = "claim"
"""Value of `Accepted.via` when a term claims the fence."""

WRITTEN_UNDER = {"portfolio_live": "background_services", "job_run": "daily_scheduler"}
"""The watched tables, each with the lease that its writes need."""


@dataclass(frozen=True)
class Accepted:
    """A committed write, or a claim of the fence. After either, no older term may write.

    `at` is in seconds since the epoch; `via` is the table, or `writer` or `claim`.
    """

    place: int
    lease: str
    token: int
    via: str
    at: float


async def watch(url: str) -> None:
    """Add the table and its triggers to a migrated database."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(ACCEPTED)
        for table, lease in WRITTEN_UNDER.items():
            for what in ("insert", "update"):
                await connection.execute(NOTE.format(what=what, table=table, lease=lease))
    finally:
        await connection.close()


async def add_entry(writes: FencedWrites, lease: str, token: int) -> None:
    """Write a row of the chaos run in a transaction that has passed the fence."""
    await writes._connection.execute(
        "insert into chaos_write (lease, token, via) values ($1, $2, 'writer')", lease, token
    )


async def newest_token(url: str, lease: str) -> int:
    """Return the token of the newest term that has claimed the lease's fence; 0 if no term has claimed it."""
    connection = await asyncpg.connect(url, timeout=2)
    try:
        found: int | None = await connection.fetchval(
            "select max(token) from chaos_write where lease = $1", lease, timeout=2
        )
    finally:
        await connection.close(timeout=2)
    return found or 0


async def accepted(url: str) -> list[Accepted]:
    """Return every committed write and every claim, in commit order."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "select place, lease, token, via, extract(epoch from at)::float8 as at from chaos_write order by place"
        )
    finally:
        await connection.close()
    return [Accepted(**row) for row in rows]
