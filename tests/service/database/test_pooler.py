"""A pooler in front of the database is detected if it gives each transaction another session."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from service.database import live_notifications as notices
from service.database.connection import StoreError
from service.database.pool import PoolGroup
from service.database.store import Store
from tests.support.pooler import Pooler
from tests.support.processes import Service, Sidecar
from tests.support.waiting import eventually

FOUND = "DATABASE_URL: a pooler gives each transaction another session"


@pytest.fixture
async def pooler(samples_url: str) -> AsyncIterator[Pooler]:
    """A pooler in transaction mode."""
    address = urlsplit(samples_url)
    async with Pooler(address.port or 0, "postgres", address.path.strip("/"), "transaction") as pooler:
        yield pooler


def through(pooler: Pooler) -> str:
    return f"postgresql://postgres@127.0.0.1:{pooler.port}/any"


async def test_a_pooler_in_transaction_mode_is_detected_although_it_has_no_other_clients(pooler: Pooler) -> None:
    async with await Store.connect(through(pooler)) as store:
        with pytest.raises(StoreError, match=FOUND):
            await store.check_sessions()
        with pytest.raises(StoreError, match=FOUND):
            await store.ping()


@pytest.mark.parametrize("busy", [1, 2, 3])
async def test_a_pooler_in_transaction_mode_is_detected_during_transactions_of_other_clients(
    pooler: Pooler, busy: int
) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(busy):
            other = await asyncpg.connect(through(pooler), statement_cache_size=0)
            stack.push_async_callback(other.close)
            await stack.enter_async_context(other.transaction())
            await other.execute("select 1")
        async with await Store.connect(through(pooler)) as store:
            with pytest.raises(StoreError, match=FOUND):
                await store.check_sessions()


async def test_a_direct_connection_and_a_session_pooler_are_accepted(samples_url: str, pooler: Pooler) -> None:
    async with await Store.connect(samples_url) as store:
        await store.check_sessions()
    pooler.mode = "session"
    async with await Store.connect(through(pooler)) as store:
        for _ in range(3):
            await store.check_sessions()
            await store.ping()


async def test_a_pooler_that_changes_its_mode_is_detected_and_accepted_again(pooler: Pooler) -> None:
    pooler.mode = "session"
    group = PoolGroup()
    async with (
        await Store.connect(through(pooler), group=group) as store,
        await Store.connect(through(pooler), group=group) as neighbour,
    ):
        await asyncio.gather(store.check_sessions(), neighbour.ping())
        pooler.mode = "transaction"
        with pytest.raises(StoreError, match=FOUND):
            for _ in range(2):  # at the first check, each connection still has its old session
                await store.check_sessions()
        with pytest.raises(StoreError, match=FOUND):
            await neighbour.ping()
        assert neighbour.sessions_suspected
    pooler.mode = "session"
    async with await Store.connect(through(pooler), group=group) as store:
        await store.check_sessions()
        await store.ping()


async def test_an_error_of_a_transaction_pooler_names_it_and_starts_a_check(samples_url: str) -> None:
    for state in ("42P05", "26000"):
        async with await Store.connect(samples_url, connections=1) as store:
            assert not store.sessions_suspected
            with pytest.raises(StoreError, match=FOUND):
                await store._fetch(f"do $$ begin raise sqlstate '{state}'; end $$")
            assert store.sessions_suspected


async def test_a_listener_whose_session_was_exchanged_reports_the_pooler(
    pooler: Pooler, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = [await asyncpg.connect(through(pooler), statement_cache_size=0) for _ in range(2)]
    async with other.transaction():
        async with one.transaction():
            await one.execute("select 1")
            listening = notices.listen(through(pooler), probe_interval=0.05)
            assert (await anext(listening)).missed
            await other.execute("select 1")  # runs in the session that listens
        hearing = asyncio.ensure_future(anext(listening))
        await eventually(lambda: FOUND in caplog.text)
        hearing.cancel()
        await asyncio.wait((hearing,))
    await one.close()
    await other.close()


async def test_a_service_behind_a_transaction_pooler_does_no_work_and_reports_the_cause(
    pooler: Pooler,
    new_sidecar: Callable[..., Sidecar],
    new_service: Callable[..., Service],
    stack: AsyncExitStack,
    session: aiohttp.ClientSession,
) -> None:
    sidecar = await stack.enter_async_context(new_sidecar("one"))
    service = await stack.enter_async_context(new_service("one", sidecar.url, DATABASE_URL=through(pooler)))

    async def is_reported() -> bool:
        return FOUND in (await service.get_internal("/healthz"))["database"]

    await eventually(is_reported)
    status = await service.get_internal("/background/status")
    assert not any(lease["is_leader"] for lease in status["leases"].values())
    assert sum(FOUND in message for message in service.messages()) == 1
    pooler.mode = "session"
    await eventually(lambda: "the database answers" in service.messages(), within=60)
