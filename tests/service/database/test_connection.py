"""A cancellation is never replaced by the failure of a transaction, of a clean-up or of a concurrent step."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

import pytest

from service.database import connection as connecting
from service.database import pool as pooling
from service.database.connection import Connection, run_concurrently, transaction
from service.database.store import Store
from tests.support.proxy import Proxy
from tests.support.waiting import LIMIT, eventually


@asynccontextmanager
async def savepoint(store: Store) -> AsyncIterator[Connection]:
    async with store._transaction() as connection, transaction(connection):
        yield connection


@pytest.mark.parametrize("block", [Store._connection, Store._snapshot, Store._transaction, savepoint])
async def test_a_cancelled_statement_to_a_silent_database_ends_as_cancelled(
    block: Callable[[Store], AbstractAsyncContextManager[Connection]], migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work is cancelled only once. If it saw another error instead, it would continue after the end of its term."""
    monkeypatch.setattr(connecting, "ROLLBACK_LIMIT", 0.2)
    monkeypatch.setattr(pooling, "RELEASE_LIMIT", 0.2)
    port = urlsplit(migrated).port
    assert port is not None
    async with Proxy(port) as proxy, asyncio.timeout(LIMIT):
        store = await Store.connect(migrated.replace(f":{port}", f":{proxy.port}"), connections=1)
        silent = asyncio.Event()

        async def ask() -> None:
            async with block(store) as connection:
                proxy.black_hole()
                silent.set()
                await connection.execute("select 1")

        asking = asyncio.create_task(ask())
        await silent.wait()
        asking.cancel()
        await asyncio.wait((asking,))
        assert asking.cancelled()
        proxy.flow()
        await store.ping()
        await store.close()


async def test_the_error_of_a_transaction_is_that_of_its_block_although_its_connection_is_lost(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store._transaction() as connection:
            connection.terminate()
            raise ZeroDivisionError


async def test_a_cancellation_while_failed_steps_end_is_raised() -> None:
    ending, may_end = asyncio.Event(), asyncio.Event()

    async def fail() -> None:
        raise ZeroDivisionError

    async def end_slowly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await may_end.wait()

    running = asyncio.create_task(run_concurrently((fail(), end_slowly())))
    await ending.wait()
    running.cancel()
    await eventually(running.cancelling)
    may_end.set()
    await asyncio.wait((running,))
    assert running.cancelled()


async def test_failed_steps_do_not_leave_their_caller_cancelled() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    this = asyncio.current_task()
    assert this is not None
    with pytest.raises(ZeroDivisionError):
        await run_concurrently((fail(), fail()))
    assert this.cancelling() == 0
    await run_concurrently(())
