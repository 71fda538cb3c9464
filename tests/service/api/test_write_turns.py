"""PUTs that wait for locked rows or for each other: reads and the writes of other users go on."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from uuid import UUID

import aiohttp
import pytest

from runtime.addresses import Address
from runtime.listener import Listener
from service.api.write_turns import TooManyWrites, WriteTurns
from service.database import position_writes
from service.database.connection import Connection
from service.database.store import Store
from service.portfolio.records import PositionEntry
from tests.support.positions import LONG_AGO, somebody_waits_for_a_lock
from tests.support.served_api import Served
from tests.support.waiting import LIMIT, eventually

PORTFOLIOS = [UUID(int=number, version=4) for number in range(1, 9)]
"""Ids of the portfolios; the owner of each portfolio has the same id."""
ONE, OTHER = UUID(int=1), UUID(int=2)
LOCK = "select from portfolio for update"


@pytest.fixture
async def writing(store: Store, session: aiohttp.ClientSession) -> AsyncIterator[Served]:
    """The API with the portfolios of eight users, and with as many connections as in production."""
    await store.put_positions(PositionEntry(each, each, "A", Decimal(1), LONG_AGO) for each in PORTFOLIOS)
    served = Served(store, session)
    probing = asyncio.create_task(served.access.run())
    await served.access.connected()
    async with served.listening(Listener, address=Address("127.0.0.1", 0)):
        yield served
    probing.cancel()
    await asyncio.wait((probing,))


async def put(served: Served, portfolio_id: UUID) -> aiohttp.ClientResponse:
    entries = [{"symbol": "A", "quantity": "2", "valid_from": LONG_AGO.isoformat()}]
    url, limit = f"{served.url}/portfolios/{portfolio_id}/positions", aiohttp.ClientTimeout(LIMIT)
    async with served.session.put(url, json=entries, timeout=limit) as response:
        await response.read()
        return response


async def test_writes_of_many_users_that_wait_for_locked_rows_leave_connections_for_reads(
    writing: Served, raw: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(position_writes, "LOCK_LIMIT", 1000.0)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks, raw.transaction():
        await raw.execute(LOCK)
        puts = [tasks.create_task(put(writing, each)) for each in PORTFOLIOS]
        await somebody_waits_for_a_lock(raw, 3)
        for each in PORTFOLIOS:
            assert (await writing.get(f"/portfolios/{each}/live"))[0] == 404, "there is no value yet"
        assert not any(each.done() for each in puts)
    assert [each.result().status for each in puts] == [200] * len(puts)


async def test_a_write_to_rows_that_stay_locked_is_503_and_keeps_its_session(
    writing: Served, raw: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(position_writes, "LOCK_LIMIT", 0.1)
    sessions = "select array_agg(pid order by pid) from pg_stat_activity where datname = current_database()"
    before = await raw.fetchval(sessions)
    for locked in (LOCK, "select from position for update"):
        async with raw.transaction():
            await raw.execute(locked)
            refused = await put(writing, PORTFOLIOS[0])
            assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
            assert await refused.json() == {"error": "another writer is changing these positions; try again"}
    assert (await put(writing, PORTFOLIOS[0])).status == 200
    assert set(before) <= set(await raw.fetchval(sessions))


async def test_too_many_writes_of_one_user_are_429_and_delay_no_other_user(
    writing: Served, raw: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(position_writes, "LOCK_LIMIT", 1000.0)
    writing.api._turns = WriteTurns(per_user=4)
    mine, *others = PORTFOLIOS
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks, raw.transaction():
        await raw.execute("select from portfolio where id = $1 for update", mine)
        puts = [tasks.create_task(put(writing, mine)) for _ in range(6)]
        await eventually(lambda: sum(each.done() for each in puts) == 2)
        refused = [each.result() for each in puts if each.done()]
        assert [(each.status, each.headers["Retry-After"]) for each in refused] == [(429, "1")] * 2
        assert [(await put(writing, each)).status for each in others] == [200] * len(others)
    assert sorted(each.result().status for each in puts) == [200] * 4 + [429] * 2


async def test_a_user_may_save_many_portfolios_at_once(writing: Served) -> None:
    mine = [UUID(int=number, version=4) for number in range(100, 160)]
    await writing.store.put_positions(PositionEntry(each, ONE, "A", Decimal(1), LONG_AGO) for each in mine)
    async with asyncio.timeout(LIMIT):
        assert {answer.status for answer in await asyncio.gather(*(put(writing, each) for each in mine))} == {200}


async def test_a_user_s_writes_take_turns_in_order_and_leave_nothing_behind() -> None:
    turns = WriteTurns(writers=2, per_user=3)
    order: list[str] = []
    gate = asyncio.Event()

    async def write(user: UUID, name: str) -> None:
        async with turns.turn(user):
            order.append(name)
            await gate.wait()

    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        first, second, third = [tasks.create_task(write(ONE, name)) for name in ("1a", "1b", "1c")]
        await eventually(lambda: order == ["1a"])
        with pytest.raises(TooManyWrites, match="3 writes"):
            await write(ONE, "1d")
        tasks.create_task(write(OTHER, "2a"))
        await eventually(lambda: order == ["1a", "2a"])
        second.cancel()
        await asyncio.wait((second,))
        gate.set()
    assert (first.done(), third.done(), order) == (True, True, ["1a", "2a", "1c"])
    assert not turns._under_way
    assert not turns._locks
