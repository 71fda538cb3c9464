"""Requests while the database does not answer, or answers only new connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest
from aiohttp import ClientSession

from runtime.addresses import Address
from runtime.listener import Listener
from service.api import store_access
from service.api.store_access import NO_ANSWER
from service.database.store import Store
from tests.support.positions import somebody_waits_for_a_lock
from tests.support.proxy import Direction, Proxy
from tests.support.served_api import PORTFOLIO, Served
from tests.support.waiting import LIMIT, eventually

LIVE = f"/portfolios/{PORTFOLIO}/live"
CONNECTIONS = 5


@pytest.fixture(autouse=True)
def intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the intervals short. A probe may take a second, so a busy machine does not make a probe late."""
    monkeypatch.setattr(store_access, "PROBE_LIMIT", 1.0)
    monkeypatch.setattr(store_access, "PROBE_INTERVAL", 0.01)
    monkeypatch.setattr(store_access, "NEW_CONNECTION_INTERVAL", 0.01)
    monkeypatch.setattr(store_access, "TRIAL_INTERVAL", 1000.0)


@asynccontextmanager
async def serving(samples_url: str, session: ClientSession) -> AsyncIterator[tuple[Served, Proxy]]:
    """The API with all its connections open, and a proxy in front of the database. No statement has a time limit."""
    port = int(samples_url.rpartition(":")[2].split("/")[0])
    async with Proxy(port) as proxy:
        url = samples_url.replace(f":{port}", f":{proxy.port}")
        async with await Store.connect(url, connections=CONNECTIONS, call_limit=1000.0) as store:
            served = Served(store, session)
            probing = asyncio.create_task(served.access.run())
            await served.access.connected()
            async with served.listening(Listener, address=Address("127.0.0.1", 0)):
                # Wait until the sessions are checked: a later check could close a connection.
                await eventually(lambda: served.access._sessions_due)
                async with AsyncExitStack() as all_open:
                    for _ in range(CONNECTIONS):
                        await all_open.enter_async_context(store._connection())
                yield served, proxy
            probing.cancel()
            await asyncio.wait((probing,))


async def test_one_request_per_interval_waits_for_a_database_that_does_not_answer(
    samples_url: str, session: ClientSession
) -> None:
    async with serving(samples_url, session) as (served, proxy), asyncio.TaskGroup() as tasks:
        proxy.black_hole()
        await eventually(lambda: served.access.trouble == NO_ANSWER)
        asking = [tasks.create_task(served.get(LIVE)) for _ in range(20)]
        await eventually(lambda: sum(each.done() for each in asking) == 19)
        answers = [await each for each in asking if each.done()]
        assert answers == [(503, {"error": "the database is not available"})] * 19
        (trial,) = (each for each in asking if not each.done())

        proxy.flow()
        assert (await trial)[0] == 404
        assert (await served.get(LIVE))[0] == 404, "the answer to the trial ends the refusals"
        await eventually(lambda: served.access.trouble is None)


async def test_dead_connections_are_replaced_while_requests_wait_on_all_of_them(
    samples_url: str, session: ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(samples_url, session) as (served, proxy), asyncio.TaskGroup() as tasks:
        proxy.black_hole()
        asking = [tasks.create_task(served.get(LIVE)) for _ in range(2 * CONNECTIONS)]
        await eventually(lambda: served.access.trouble == NO_ANSWER)
        assert not any(each.done() for each in asking)

        proxy.requests, proxy.replies = Direction(), Direction()  # new connections work
        async with asyncio.timeout(LIMIT):
            statuses = sorted([(await each)[0] for each in asking])
        assert statuses.count(404) >= CONNECTIONS, "requests without a connection get a new one"
        assert statuses.count(503) <= CONNECTIONS
        await eventually(lambda: served.access.trouble is None)
        assert (await asyncio.gather(*(served.get(LIVE) for _ in range(20))))[0][0] == 404
    said = [record.getMessage() for record in caplog.records if record.name == store_access.__name__]
    assert said == [
        f"database: {NO_ANSWER}",
        "database: open connections do not answer, but a new one does; the silent ones are replaced",
    ]


async def test_connections_whose_statements_wait_for_a_lock_are_kept(samples_url: str, session: ClientSession) -> None:
    async with serving(samples_url, session) as (served, proxy), asyncio.TaskGroup() as tasks:
        other = await asyncpg.connect(samples_url)
        async with other.transaction():
            await other.execute("lock table portfolio in access exclusive mode")
            asking = [tasks.create_task(served.get(LIVE)) for _ in range(CONNECTIONS)]
            await somebody_waits_for_a_lock(other, CONNECTIONS)
            await eventually(lambda: served.access.trouble == NO_ANSWER)
            before = proxy.accepted
            await eventually(lambda: proxy.accepted >= before + 3)
            assert not any(each.done() for each in asking)
        assert [(await each)[0] for each in asking] == [404] * CONNECTIONS
        await eventually(lambda: served.access.trouble is None)
        await other.close()


async def test_without_a_further_connection_requests_wait_on_the_open_ones(
    samples_url: str, session: ClientSession
) -> None:
    async with serving(samples_url, session) as (served, proxy), asyncio.TaskGroup() as tasks:
        proxy.turn_away = 1_000_000
        proxy.black_hole()
        before = proxy.accepted
        asking = [tasks.create_task(served.get(LIVE)) for _ in range(CONNECTIONS)]
        await eventually(lambda: proxy.accepted >= before + 3)
        assert served.access.trouble == NO_ANSWER
        proxy.flow()
        assert [(await each)[0] for each in asking] == [404] * CONNECTIONS
