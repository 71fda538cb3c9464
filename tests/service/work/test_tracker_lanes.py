"""Ticks of many portfolios: they use parallel transactions, and portfolios take turns to get intraday points."""

import asyncio
import re
import threading
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from service.database import position_reader
from service.database.connection import Connection
from service.database.copy_format import HEADER, copy_rows
from service.database.fenced_writes import FencedWrites
from service.database.sql import statement
from service.database.store import Store
from service.portfolio.positions import Block
from service.portfolio.valuation import Marks, Values, value_block
from service.work import tracker as tracking
from service.work.metrics import WorkMetrics
from tests.service.portfolio.reference import nothing_held
from tests.service.work.test_tracker import OPEN, TICK, Answer, Market, counted, slots
from tests.support.positions import entry, somebody_waits_for_a_lock
from tests.support.work_fakes import FakeTerm, FakeTermOver


async def test_a_tick_values_each_of_many_portfolios_and_notifies_once(
    store: Store, raw: Connection, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PORTFOLIOS_PER_LANE", 3)
    await store.put_positions([entry(n, "A", str(n)) for n in range(1, 8)])
    notified: list[object] = []
    await raw.add_listener("portfolio_live", lambda *notification: notified.append(notification[3]))
    await Market(store, metrics, OPEN, {"A": "10"}).follow(2)
    await raw.fetchval("select 1")  # earlier notifications arrive before the answer to this query
    assert notified == [OPEN.isoformat(), (OPEN + TICK).isoformat()]
    values = await store.live_many([UUID(int=n) for n in range(1, 8)])
    assert {portfolio.int: live.value for portfolio, live in values.items()} == {n: 10 * n for n in range(1, 8)}


@pytest.mark.parametrize("portfolios_per_lane", [100, 3])
@pytest.mark.parametrize(("points_per_tick", "longest_turn"), [(4, 10), (1, 2)])
async def test_many_portfolios_get_their_intraday_points_in_turns(
    store: Store,
    raw: Connection,
    metrics: WorkMetrics,
    monkeypatch: pytest.MonkeyPatch,
    portfolios_per_lane: int,
    points_per_tick: int,
    longest_turn: int,
) -> None:
    monkeypatch.setattr(tracking, "PORTFOLIOS_PER_LANE", portfolios_per_lane)
    monkeypatch.setattr(tracking, "MAX_TURNS", longest_turn)
    await store.put_positions([entry(n, "A", "1") for n in range(1, 8)])
    market = Market(store, metrics, OPEN, {"A": "10"})
    tracker = market.tracker()
    tracker._points_per_tick = points_per_tick
    with pytest.raises(FakeTermOver):
        await tracker.run(FakeTerm(clock=market.clock, until=OPEN + 4 * TICK))
    for portfolio in range(1, 8):
        points = await slots(raw, portfolio)
        assert len(points) == 2
        assert points[1] - points[0] == 2 * TICK


async def test_portfolios_take_turns_although_every_second_tick_is_skipped(
    store: Store, raw: Connection, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put_positions([entry(n, "A", "1") for n in range(1, 5)])

    async def late() -> Answer:
        market.clock.time += timedelta(seconds=31)
        return {"A": "10"}

    market = Market(store, metrics, OPEN, late)
    tracker = market.tracker()
    tracker._points_per_tick = 2
    monkeypatch.setattr(tracking, "LATEST_TIMEOUT", 60.0)
    with pytest.raises(FakeTermOver):
        await tracker.run(FakeTerm(clock=market.clock, until=OPEN + 8 * TICK))
    assert [len(await slots(raw, portfolio)) for portfolio in range(1, 5)] == [2, 2, 2, 2]


async def test_no_value_is_committed_before_its_prices(
    store: Store, raw: Connection, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database fails between the commits of two lanes."""
    monkeypatch.setattr(tracking, "PORTFOLIOS_PER_LANE", 1)
    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "1")])
    await raw.execute(
        """
        create function fail() returns trigger language plpgsql as $$ begin raise 'no room'; end $$;
        create constraint trigger fails after insert on portfolio_live deferrable initially deferred
            for each row when (new.portfolio_id = '00000000-0000-0000-0000-000000000001') execute function fail();
        """
    )
    try:
        await Market(store, metrics, OPEN, {"A": "10"}).follow(1)
    finally:
        await raw.execute("drop function fail cascade")
    assert counted(metrics, "failed") == 1
    assert list(await store.live_many([UUID(int=1), UUID(int=2)])) == [UUID(int=2)]
    assert await raw.fetchval("select price from price_live where symbol = 'A'") == 10


async def test_failed_ticks_in_lanes_commit_nothing_and_the_databases_trouble_stays_reported(
    store: Store, raw: Connection, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit before each tick would keep the leader from resigning, and report that the database takes writes."""
    monkeypatch.setattr(tracking, "PORTFOLIOS_PER_LANE", 1)
    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "1")])
    market = Market(store, metrics, OPEN, {"A": "10"})
    await market.follow(1)
    await raw.execute(
        """
        create function meddle() returns trigger language plpgsql as $$
        begin
            raise sqlstate '53100' using message = 'could not extend file: No space left on device';
        end $$;
        create trigger full_disk before insert or update on portfolio_live for each row execute function meddle();
        """
    )
    accepted: list[None] = []
    monkeypatch.setattr(store.writes, "accepted", lambda: accepted.append(None))
    await market.follow(3)
    assert counted(metrics, "failed") == 3
    assert len(accepted) == 1, "the claim of the fence"
    assert store.writes.trouble is not None
    assert store.writes.of("lease").remaining() is not None


async def test_a_deletion_waits_for_a_tick_in_lanes(
    store: Store, raw: Connection, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch, migrated: str
) -> None:
    """Otherwise the deletion could wait for one lane while the other lane waits for the deletion."""
    monkeypatch.setattr(tracking, "PORTFOLIOS_PER_LANE", 1)
    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "1")])
    deleter = await asyncpg.connect(migrated)
    deleting: list[asyncio.Task[str]] = []
    live = FencedWrites.live

    async def live_beside_a_deletion(writes: FencedWrites, *args: Any) -> None:
        if not deleting:
            deleting.append(asyncio.create_task(deleter.execute("delete from portfolio where id = $1", UUID(int=1))))
            await somebody_waits_for_a_lock(raw)
        await live(writes, *args)

    monkeypatch.setattr(FencedWrites, "live", live_beside_a_deletion)
    try:
        await Market(store, metrics, OPEN, {"A": "10"}).follow(1)
        await asyncio.gather(*deleting)
    finally:
        await deleter.close()
    assert counted(metrics, "written") == 1
    assert list(await store.live_many([UUID(int=1), UUID(int=2)])) == [UUID(int=2)]


async def test_a_block_is_valued_while_the_server_receives_the_block_before_it(
    store: Store, raw: Connection, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PORTFOLIOS_PER_LANE", 4)
    monkeypatch.setattr(position_reader, "PORTFOLIOS_PER_BLOCK", 2)
    await store.put_positions([entry(n, "A", str(n)) for n in range(1, 5)])
    received = threading.Event()
    copied = len(HEADER + copy_rows(nothing_held([UUID(int=1), UUID(int=2)])))
    waited: list[bool] = []

    def beside_the_copy(block: Block, marks: Marks) -> Values:
        if block.ids[0] != UUID(int=1).bytes:
            waited.append(received.wait(30))
        return value_block(block, marks)

    async def watch() -> None:
        while await raw.fetchval("select sum(bytes_processed) from pg_stat_progress_copy") != copied:
            pass  # no pause is needed, because each query takes a moment
        received.set()

    monkeypatch.setattr(tracking, "value_block", beside_the_copy)
    watching = asyncio.create_task(watch())
    try:
        await Market(store, metrics, OPEN, {"A": "10"}).follow(1)
    finally:
        watching.cancel()
    assert waited == [True], "the server has the first block before the second one is valued"
    values = await store.live_many([UUID(int=n) for n in range(1, 5)])
    assert {portfolio.int: live.value for portfolio, live in values.items()} == {n: 10 * n for n in range(1, 5)}


async def test_staged_values_are_merged_with_the_stored_rows_in_key_order(store: Store, raw: Connection) -> None:
    """A nested loop would read all staged rows for each row; a hash join uses a sixth more processor time than a merge.

    The written range lies within one bin of the histogram, so the planner expects one row and may prefer a nested loop.
    """
    ids = [UUID(int=number) for number in range(1, 20_001)]
    part = ids[2_000:4_000]
    await raw.execute("insert into portfolio (id, user_id, name) select id, id, '' from unnest($1::uuid[]) as id", ids)
    await store.claim_fence(FakeTerm())
    async with store.fenced(FakeTerm(), nothing_held(ids)) as writes:
        await writes.live(OPEN.date(), OPEN)
    await raw.execute("set default_statistics_target = 2; analyze portfolio, portfolio_live")
    day, between = OPEN.date(), (part[0], part[-1])
    statements = {
        "update_live": (day, OPEN, 1, *between),
        "insert_live": (day, OPEN, 1, *between),
        "write_intraday": (day, OPEN, *between, 1),
        "add_history": (day, "daily_eod", "captured", 1, *between),
        "write_history": (day, "daily_eod", "captured", "none", 1, *between),
    }
    async with store.fenced(FakeTerm(), nothing_held(part)) as writes:
        for name, arguments in statements.items():
            plan = await writes._connection.fetch("explain " + statement(name), *arguments)
            steps = "\n".join(line[0] for line in plan)
            assert re.search("Merge (Semi |Anti )?Join", steps), (name, steps)
            assert not re.search("Nested Loop.*\n.*Join Filter", steps), (name, steps)
