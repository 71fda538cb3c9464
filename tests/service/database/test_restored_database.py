"""A logical restore: into the same server, or into a younger one.

The transaction ids of a younger server are lower than those in the dump.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from ops.local.servers import PostgresServer
from service.database.migrations import migrate
from service.database.store import Store
from tests.support.positions import LONG_AGO, entry, held, holdings
from tests.support.work_fakes import FakeTerm

TABLES = ("portfolio", "position", "position_change")
AHEAD = 5000
"""Number of transactions by which the old server is ahead of the new one."""

Raw: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Raw]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def next_transaction(connection: Raw) -> int:
    return int(await connection.fetchval("select pg_current_xact_id()::text"))


async def restore(old: Raw, new: Raw) -> None:
    """Copy the data like pg_dump and pg_restore: without triggers."""
    await new.execute("set session_replication_role = replica")
    for table in TABLES:
        columns = [
            row["attname"]
            for row in await new.fetch(
                "select attname from pg_attribute where attrelid = $1::text::regclass and attnum > 0"
                " and not attisdropped and attgenerated = ''",
                f"public.{table}",
            )
        ]
        data = BytesIO()
        await old.copy_from_table(table, columns=columns, output=data)
        data.seek(0)
        await new.copy_to_table(table, columns=columns, source=data)
    await new.execute("reset session_replication_role")


@pytest.fixture
async def restored(store: Store, raw: Raw, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a young server with the store's portfolios and the old server's queue of changes."""
    with PostgresServer(tmp_path / "young", settings=("fsync=off",)) as young:
        await migrate(young.url)
        async with connected(young.url) as new:
            target = await next_transaction(new) + AHEAD
            while await next_transaction(raw) < target:
                await raw.execute(
                    "do $$ begin for i in 1..500 loop commit; perform pg_current_xact_id(); end loop; end $$"
                )
            await store.put_positions([entry(1, "A", "1"), entry(2, "B", "2")])
            await restore(raw, new)
            assert int(await new.fetchval("select max(xid)::text from position_change")) > await next_transaction(new)
        yield young.url


async def test_a_tick_after_a_restore_reads_only_the_changes(restored: str) -> None:
    async with await Store.connect(restored) as store, connected(restored) as new:
        book = await store.load_positions(LONG_AGO)
        read: list[tuple[int, int]] = []
        assert await store.update_positions(book, LONG_AGO, lambda *done: read.append(done)) is book
        await store.put_positions([entry(1, "A", "5")])
        assert await store.update_positions(book, LONG_AGO) is book
        assert holdings(book) == holdings(await store.load_positions(LONG_AGO))
        assert read == []
        await store.claim_fence(FakeTerm(7, "one"))
        async with store.fenced(FakeTerm(7, "one")) as writes:
            await writes.forget_changes(book.checkpoint.snapshot)
        assert await new.fetchval("select count(*) from position_change") == 0


async def test_positions_of_another_server_are_loaded_again(store: Store, restored: str) -> None:
    """While a leader works, the database's host name may move to another server, where the old snapshot is invalid."""
    book = await store.load_positions(LONG_AGO)
    async with await Store.connect(restored) as young:
        await young.put_positions([entry(1, "A", "9")])
        updated = await young.update_positions(book, LONG_AGO)
        assert updated is not book
        assert holdings(updated) == holdings(await young.load_positions(LONG_AGO))


async def run(postgres: PostgresServer, program: str, *arguments: str, given: bytes = b"") -> bytes:
    """The output of one of the programs that come with Postgres."""
    command = [str(postgres.binaries / program), *arguments]
    done = await asyncio.to_thread(subprocess.run, command, input=given, capture_output=True, check=True)
    return done.stdout


async def test_positions_loaded_in_the_middle_of_a_restore_are_loaded_again_after_it(
    postgres: PostgresServer, store: Store, migrated: str, database_url: str
) -> None:
    """The restored changes have the ids of the dump, and the data is copied before the triggers exist."""
    await store.put_positions([entry(1, "A", "1")])

    async def restore_part(part: str) -> None:
        dump = await run(postgres, "pg_dump", f"--section={part}", migrated)
        await run(postgres, "psql", "-X", "--set=ON_ERROR_STOP=1", database_url, given=dump)

    async with await Store.connect(database_url) as restored:
        await restore_part("pre-data")
        book = await restored.load_positions(LONG_AGO)
        await restore_part("data")
        await restore_part("post-data")
        updated = await restored.update_positions(book, LONG_AGO)
        assert holdings(updated) == await held(store, LONG_AGO)


async def test_positions_are_loaded_again_after_another_database_got_the_name(
    postgres: PostgresServer, database_url: str
) -> None:
    await migrate(database_url)
    name = database_url.rsplit("/", 1)[1]
    async with connected(postgres.url) as admin:
        await admin.execute(f'create database "{name}_copy" template "{name}"')
        async with await Store.connect(database_url) as store:
            await store.put_positions([entry(1, "A", "1")])
            book = await store.load_positions(LONG_AGO)
        await admin.execute(f'drop database "{name}"')
        await admin.execute(f'alter database "{name}_copy" rename to "{name}"')
        async with await Store.connect(database_url) as store:
            assert holdings(await store.update_positions(book, LONG_AGO)) == {}
