"""Refusals of symbols in a real database are used by a new leader in another task and by the daily jobs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest

from service.database.connection import Connection, StaleTerm
from service.database.store import Store
from service.market.calendar import NyseCalendar
from service.prices.alpaca import AlpacaPrices
from service.prices.alpaca_client import AlpacaClient
from service.prices.standing import FIRST_REFUSAL, Refusal
from service.work.jobs import Jobs
from service.work.metrics import WorkMetrics
from service.work.tracker import Tracker
from tests.service.prices.alpaca_server import Alpaca, bar, trade
from tests.service.prices.test_alpaca import CREDENTIALS
from tests.support.positions import entry
from tests.support.work_fakes import Clock, FakeTerm, FakeTermOver

FRIDAY = date(2026, 2, 13)
OPEN = datetime(2026, 2, 13, 15, 30, tzinfo=UTC)
NIGHT = datetime(2026, 2, 14, 9, 0, tzinfo=UTC)
TICK = timedelta(seconds=30)
BAD = [f"BAD{number:02}" for number in range(30)]


@pytest.fixture
async def alpaca() -> AsyncIterator[Alpaca]:
    bars = {"A": [bar("5")], "B": [bar("6")]}
    server = Alpaca({"A": trade("5"), "B": trade("6")}, bars, invalid=set(BAD), refills=True)
    async with server.serving():
        yield server


@asynccontextmanager
async def task(alpaca: Alpaca, store: Store, now: datetime) -> AsyncIterator["Task"]:
    clock = Clock(now)

    def seconds() -> float:
        return clock.time.timestamp()

    prices = AlpacaPrices(
        AlpacaClient(alpaca.url, CREDENTIALS),
        NyseCalendar(),
        feed="iex",
        budget=8.0,
        now=clock.now,
        clock=seconds,
    )
    try:
        yield Task(store, prices, clock, alpaca)
    finally:
        await prices.aclose()


class Task:
    """One process: its price source and the work that uses it."""

    def __init__(self, store: Store, prices: AlpacaPrices, clock: Clock, alpaca: Alpaca) -> None:
        self.store = store
        self.prices = prices
        self.clock = clock
        self.alpaca = alpaca

    async def track(self, metrics: WorkMetrics, ticks: int, token: int) -> None:
        self.alpaca.now = self.clock.time
        self.alpaca.snapshots = {
            symbol: trade(price, self.clock.time.isoformat()) for symbol, price in (("A", "5"), ("B", "6"))
        }
        tracker = Tracker(self.store, self.prices, NyseCalendar(), metrics, now=self.clock.now, sleep=self.clock.sleep)
        until = self.clock.time + ticks * TICK
        with pytest.raises(FakeTermOver):
            await tracker.run(FakeTerm(token, f"holder {token}", clock=self.clock, until=until))

    async def run_snapshot(self, token: int) -> None:
        self.alpaca.now = self.clock.time
        session = NyseCalendar().session(FRIDAY)
        assert session is not None
        await self.store.claim_fence(FakeTerm(token, f"holder {token}"))
        jobs = Jobs(self.store, self.prices, NyseCalendar(), now=self.clock.now)
        await jobs.run("snapshot", session, FakeTerm(token, f"holder {token}"), rerun=True)


def bad_asked(alpaca: Alpaca) -> set[str]:
    return {symbol for batch in alpaca.symbols_asked for symbol in batch} & set(BAD)


async def put(store: Store, bad: Sequence[str] = BAD) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1"), *(entry(2, symbol, "1") for symbol in bad)])


async def test_the_next_leader_in_another_task_requests_no_refused_symbol(
    store: Store, metrics: WorkMetrics, alpaca: Alpaca
) -> None:
    await put(store)
    async with task(alpaca, store, OPEN) as one:
        await one.track(metrics, 12, token=1)
    refused = {refusal.symbol for refusal in await store.refusals()}
    assert len(refused) >= 10
    alpaca.asked.clear()
    async with task(alpaca, store, OPEN + 12 * TICK) as two:
        await two.track(metrics, 5, token=2)
        assert two.prices.standing.priced(["A", "B"]) == ["A", "B"], "read from the database"
    assert alpaca.symbols_asked[0] == ["A", "B"]
    assert not refused & bad_asked(alpaca)
    assert {refusal.symbol for refusal in await store.refusals()} > refused


async def test_an_expired_refusal_is_deleted_once_the_symbol_has_a_price(
    store: Store, metrics: WorkMetrics, alpaca: Alpaca
) -> None:
    await put(store, bad=BAD[:1])
    async with task(alpaca, store, OPEN) as one:
        await one.track(metrics, 3, token=1)
    assert [refusal.symbol for refusal in await store.refusals()] == BAD[:1]
    alpaca.invalid.clear()
    async with task(alpaca, store, OPEN + FIRST_REFUSAL) as two:
        await two.track(metrics, 2, token=2)
    assert BAD[0] in bad_asked(alpaca)
    assert await store.refusals() == []


async def test_the_daily_jobs_use_stored_refusals_and_store_new_ones(
    store: Store, metrics: WorkMetrics, alpaca: Alpaca
) -> None:
    await put(store)
    async with task(alpaca, store, OPEN) as one:
        await one.track(metrics, 6, token=1)
    refused = {refusal.symbol for refusal in await store.refusals()}
    alpaca.asked.clear()
    async with task(alpaca, store, NIGHT) as night:
        night.prices.standing._now = lambda: OPEN + 6 * TICK  # before the refusals expire
        await night.run_snapshot(2)
    assert alpaca.symbols_asked[0] == ["A", "B"]
    assert not refused & bad_asked(alpaca)
    assert {refusal.symbol for refusal in await store.refusals()} > refused
    (row,) = await store.history(UUID(int=1))
    assert (row.value, row.stale) == (Decimal(11), False)


async def test_a_stale_leader_cannot_write_a_refusal(store: Store) -> None:
    await store.claim_fence(FakeTerm(2, "two"))
    refusal = Refusal("X", 1, OPEN, OPEN + FIRST_REFUSAL)
    with pytest.raises(StaleTerm):
        async with store.fenced(FakeTerm()) as writes:
            await writes.refusals({"X": refusal})
    assert await store.refusals() == []


async def test_refusals_are_updated_and_deleted_after_a_week(store: Store) -> None:
    await store.claim_fence(FakeTerm())
    now = datetime.now(UTC).replace(microsecond=0)
    old = Refusal("OLD", 1, now - timedelta(days=9), now - timedelta(days=8))
    first, second = Refusal("X", 1, now, now + FIRST_REFUSAL), Refusal("X", 2, now, now + 2 * FIRST_REFUSAL)
    for changes, left in (
        ({"OLD": old, "X": first}, [old, first]),
        ({"X": second}, [second]),
        ({}, [second]),
        ({"X": None}, []),
    ):
        async with store.fenced(FakeTerm()) as writes:
            await writes.refusals(changes)
        assert sorted(await store.refusals(), key=lambda refusal: refusal.symbol) == left


@pytest.mark.parametrize("column", ["refused_at", "retry_at"])
@pytest.mark.parametrize("value", ["infinity", "-infinity"])
async def test_no_refusal_lasts_forever(raw: Connection, column: str, value: str) -> None:
    instants = {"refused_at": "now()", "retry_at": "now()"} | {column: f"'{value}'"}
    with pytest.raises(asyncpg.CheckViolationError):
        await raw.execute(
            "insert into public.symbol_refusal (symbol, refusals, refused_at, retry_at, token) "
            f"values ('X', 1, {instants['refused_at']}, {instants['retry_at']}, 1)"
        )


async def test_the_owner_sees_which_symbols_have_no_price(store: Store, metrics: WorkMetrics, alpaca: Alpaca) -> None:
    await put(store)
    await store.put_positions([entry(1, BAD[3], "-1.5"), entry(1, BAD[4], "1"), entry(1, BAD[4], "0", OPEN.date())])
    async with task(alpaca, store, OPEN) as one:
        await one.track(metrics, 30, token=1)
    values = await store.live_many([UUID(int=1), UUID(int=2)])
    mixed, unpriced = values[UUID(int=1)], values[UUID(int=2)]
    assert (mixed.value, mixed.unpriced_symbols, mixed.unpriced_count) == (Decimal(11), [BAD[3]], 1)
    assert (unpriced.value, unpriced.unpriced_symbols, unpriced.unpriced_count) == (None, BAD[:20], 30)


async def test_a_user_sees_unpriced_symbols_only_of_their_own_portfolios(store: Store, raw: Connection) -> None:
    alice, bob = UUID(int=0xA11CE), UUID(int=0xB0B)
    await store.put_positions([entry(1, "X", "1", user=alice), entry(2, "Y", "1", user=bob)])
    query = "select symbols from public.unpriced_symbols($1, $2)"
    assert await raw.fetchval(query, UUID(int=2), FRIDAY) == ["Y"], "the service sees all"
    for somebody, seen in ((alice, [["X"], []]), (bob, [[], ["Y"]]), (None, [[], []])):
        async with raw.transaction():
            claims = "{}" if somebody is None else f'{{"sub": "{somebody}"}}'
            await raw.execute("select set_config('request.jwt.claims', $1, true)", claims)
            await raw.execute("set local role authenticated")
            assert [await raw.fetchval(query, UUID(int=number), FRIDAY) for number in (1, 2)] == seen
    async with raw.transaction():
        await raw.execute("set local role anon")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await raw.fetchval(query, UUID(int=1), FRIDAY)
