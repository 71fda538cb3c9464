"""A crash and a restart of the server, which may then give out some transaction ids a second time."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from ops.local.server import Server
from ops.local.servers import PostgresServer
from service.database.migrations import migrate
from service.database.store import Store
from tests.support.positions import LONG_AGO, entry, held, holdings
from tests.support.waiting import eventually

FLUSHED_BY_COMMITS_ONLY = (
    "fsync=off",
    "autovacuum=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "wal_writer_delay=10s",
)
"""Settings with which, for some seconds, only commits flush the write-ahead log.

A crash then loses the id of a transaction that was aborted.
"""
READY = b"database system is ready to accept connections"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PostgresServer]:
    async with PostgresServer(tmp_path / "postgres", settings=FLUSHED_BY_COMMITS_ONLY) as server:
        await migrate(server.url)
        yield server


async def crash(server: PostgresServer) -> None:
    """Kill one backend, as the kernel does when memory is short, and wait until the server has recovered."""
    victim = await asyncpg.connect(server.url)
    os.kill(victim.get_server_pid(), signal.SIGKILL)
    await eventually(lambda: server.log.read_bytes().count(READY) == 2)


async def test_a_change_whose_transaction_id_was_given_out_before_a_crash_is_not_missed(server: PostgresServer) -> None:
    async with await Store.connect(server.url) as store:
        await store.put_positions([entry(1, "A", "1")])
        book = await store.load_positions(LONG_AGO)
        raw = await asyncpg.connect(server.url)
        refused = raw.transaction()
        await refused.start()
        await raw.execute("update portfolio set name = 'x'")
        lost = await raw.fetchval("select pg_current_xact_id()::text")
        await refused.rollback()
        book = await store.update_positions(book, LONG_AGO)
        await crash(server)
        await store.put_positions([entry(1, "A", "500")])
        raw = await asyncpg.connect(server.url)
        assert await raw.fetchval("select max(xid)::text from position_change") == lost
        await raw.close()
        assert holdings(await store.update_positions(book, LONG_AGO)) == await held(store, LONG_AGO)


async def test_positions_are_loaded_again_after_a_restart_of_the_server(server: PostgresServer) -> None:
    """A restart may be a failover to a replica that lacks the last transactions and reuses their ids."""
    async with await Store.connect(server.url) as store:
        await store.put_positions([entry(1, "A", "1")])
        book = await store.load_positions(LONG_AGO)
        Server.stop(server)  # PostgresServer.stop would remove the data
        await server.start_beside()
        assert await store.update_positions(book, LONG_AGO) is not book
