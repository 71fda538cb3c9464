"""The tracker's ticks, on a clock that moves only during sleeps."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from service.database import connection as connecting
from service.database import write_watch
from service.database.connection import Connection, StaleTerm
from service.database.store import Store
from service.database.write_watch import WriteWatch
from service.market.calendar import AroundTheClockCalendar, Calendar, NyseCalendar
from service.portfolio.records import LiveValue, Loading, PositionEntry
from service.portfolio.valuation import Values, value_block
from service.prices import Price, PricesUnavailable
from service.work import tracker as tracking
from service.work.metrics import WorkMetrics
from service.work.price_watch import UNPRICED_GRACE
from service.work.tracker import Tracker
from tests.service.portfolio.reference import ReferenceTicks
from tests.support.positions import LONG_AGO, USER, entry
from tests.support.proxy import Proxy
from tests.support.waiting import LIMIT
from tests.support.work_fakes import Clock, FakeTerm, FakeTermOver, ScriptedPrices

MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)
OPEN = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
CLOSE = datetime(2026, 3, 2, 21, 0, tzinfo=UTC)
TICK = timedelta(seconds=30)

Answer = Mapping[str, str | Price]
Script = Answer | type[PricesUnavailable] | Callable[[], Awaitable[Answer]]


class Market:
    """One script for each tick; the last script also serves all later ticks. `follow` runs a tracker for some ticks."""

    def __init__(self, store: Store, metrics: WorkMetrics, start: datetime, *scripts: Script) -> None:
        self.store = store
        self.metrics = metrics
        self.clock = Clock(start)
        self.scripts = list(scripts)
        self.prices = ScriptedPrices(self.answer, now=self.clock.now)

    async def answer(self) -> Answer:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        if isinstance(script, Mapping):
            return script
        if isinstance(script, type):
            raise script("no answer")
        return await script()

    def tracker(self, calendar: Calendar | None = None, interval: float = 30.0) -> Tracker:
        return Tracker(
            self.store,
            self.prices,
            calendar or NyseCalendar(),
            self.metrics,
            interval=interval,
            now=self.clock.now,
            sleep=self.clock.sleep,
        )

    async def follow(self, ticks: int = 1, *, token: int = 1, interval: float = 30.0) -> Tracker:
        """Track for this number of ticks, under a new term."""
        tracker = self.tracker(interval=interval)
        until = self.clock.time + ticks * timedelta(seconds=interval)
        with pytest.raises(FakeTermOver):
            await tracker.run(FakeTerm(token, f"holder {token}", clock=self.clock, until=until))
        return tracker


async def live(store: Store, portfolio: int = 1) -> LiveValue:
    value = await store.live(UUID(int=portfolio))
    assert value is not None
    return value


def price_made_at(price: str, at: datetime, symbol: str = "A") -> Price:
    return Price(symbol, Decimal(price), at)


async def day_figures(store: Store) -> tuple[object, ...]:
    """Value, open, high, low and change."""
    value = await live(store)
    return value.value, value.day_open, value.day_high, value.day_low, value.day_change


def counted(metrics: WorkMetrics, outcome: str) -> float:
    return float(metrics.ticks.labels(outcome)._value.get())


async def slots(raw: Connection, portfolio: int = 1) -> list[datetime]:
    rows = await raw.fetch(
        "select slot from portfolio_intraday where portfolio_id = $1 order by slot", UUID(int=portfolio)
    )
    return [row["slot"] for row in rows]


async def test_every_tick_of_the_schedule_values_every_portfolio(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    await store.put_positions([entry(1, "A", "2"), entry(1, "B", "1"), entry(2, "B", "0.5")])
    market = Market(store, metrics, OPEN, {"A": "10", "B": "3"}, {"A": "11", "B": "4"})
    await market.follow(3)
    assert await slots(raw) == [OPEN, OPEN + TICK, OPEN + 2 * TICK]
    assert ((await live(store, 1)).value, (await live(store, 2)).value) == (Decimal(26), Decimal(2))
    assert (await live(store)).as_of == OPEN + 2 * TICK


async def test_the_first_tick_of_a_term_is_immediate_and_the_next_on_schedule(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, OPEN + timedelta(seconds=41), {"A": "10"})
    tracker = market.tracker()
    with pytest.raises(FakeTermOver):
        await tracker.run(FakeTerm(clock=market.clock, until=OPEN + 3 * TICK))
    assert await slots(raw) == [OPEN + TICK, OPEN + 2 * TICK]
    assert (await live(store)).as_of == OPEN + 2 * TICK
    assert market.clock.slept[0] == 19


async def test_ticks_missed_during_a_long_tick_are_skipped(store: Store, raw: Connection, metrics: WorkMetrics) -> None:
    async def slowly() -> Answer:
        await market.clock.sleep(70)
        return {"A": "10"}

    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, OPEN, slowly, {"A": "10"})
    await market.follow(5)
    assert await slots(raw) == [OPEN, OPEN + 3 * TICK, OPEN + 4 * TICK]
    assert (counted(metrics, "written"), counted(metrics, "skipped")) == (3, 2)


async def test_a_missing_price_is_carried_forward_and_marked_stale_with_its_age(
    store: Store, metrics: WorkMetrics
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1"), entry(2, "A", "1")])
    market = Market(store, metrics, OPEN, {"A": "10", "B": "5"}, {"A": "11"})
    await market.follow(3)
    value = await live(store)
    assert (value.value, value.stale, value.priced_fraction) == (Decimal(16), True, Decimal(1))
    assert value.oldest_price_at == OPEN
    assert (await live(store, 2)).stale is False


async def test_a_price_that_arrives_again_is_fresh(store: Store, metrics: WorkMetrics) -> None:
    await store.put_positions([entry(1, "A", "1")])
    await Market(store, metrics, OPEN, {"A": "10"}, {}, {"A": "12"}).follow(3)
    assert ((await live(store)).value, (await live(store)).stale) == (Decimal(12), False)


@pytest.mark.parametrize("nonsense", ["0", "-3", "NaN", "sNaN", "Infinity", "0.0000004", "1e9"])
async def test_an_invalid_price_counts_as_missing(store: Store, metrics: WorkMetrics, nonsense: str) -> None:
    await store.put_positions([entry(1, "A", "1")])
    await Market(store, metrics, OPEN, {"A": "10"}, {"A": nonsense}).follow(2)
    assert ((await live(store)).value, (await live(store)).stale) == (Decimal(10), True)


async def test_a_symbol_without_any_price_is_omitted_from_the_value_and_counted(
    store: Store, metrics: WorkMetrics
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1"), entry(2, "B", "1")])
    await Market(store, metrics, OPEN, {"A": "10"}).follow()
    assert ((await live(store, 1)).value, (await live(store, 1)).priced_fraction) == (Decimal(10), Decimal("0.5"))
    assert ((await live(store, 2)).value, (await live(store, 2)).priced_fraction) == (None, Decimal(0))


async def test_the_first_price_of_a_held_symbol_is_not_a_gain_or_a_new_high(store: Store, metrics: WorkMetrics) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1")])
    await Market(store, metrics, OPEN, {"A": "10"}, {"A": "10", "B": "90"}).follow(2)
    value = await live(store)
    assert (value.day_change, value.day_high, value.day_low) == (Decimal(0), Decimal(100), Decimal(100))


async def test_a_purchase_is_not_a_gain(store: Store, metrics: WorkMetrics) -> None:
    async def buying() -> Answer:
        await store.put_positions([entry(1, "A", "10", MONDAY)])
        return {"A": "11"}

    await store.put_positions([entry(1, "A", "1")])
    await Market(store, metrics, OPEN, {"A": "10"}, buying, {"A": "11"}).follow(3)
    assert ((await live(store)).value, (await live(store)).day_change) == (Decimal(110), Decimal(10))


async def test_open_high_low_and_change_are_reset_with_each_session(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    market = Market(
        store, metrics, CLOSE - 3 * TICK, *({"A": price} for price in ("10", "14", "9", "20", "21", "20.5"))
    )
    tracker = market.tracker()
    term = FakeTerm(clock=market.clock, until=CLOSE)
    with pytest.raises(FakeTermOver):
        await tracker.run(term)
    monday = await live(store)
    assert (monday.session_date, monday.day_open, monday.day_high, monday.day_low) == (
        MONDAY,
        Decimal(10),
        Decimal(14),
        Decimal(9),
    )
    assert monday.day_change == -1
    term.until = OPEN + timedelta(days=1) + 3 * TICK
    with pytest.raises(FakeTermOver):
        await tracker.run(term)
    tuesday = await live(store)
    assert (tuesday.session_date, tuesday.day_open, tuesday.day_high, tuesday.day_low) == (
        TUESDAY,
        Decimal(20),
        Decimal(21),
        Decimal(20),
    )
    assert tuesday.day_change == Decimal("0.5")


async def test_high_and_low_are_reset_even_if_the_open_is_unchanged(store: Store, metrics: WorkMetrics) -> None:
    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, CLOSE - 3 * TICK, *({"A": price} for price in ("10", "14", "9", "10", "11")))
    with pytest.raises(FakeTermOver):
        await market.tracker().run(FakeTerm(clock=market.clock, until=OPEN + timedelta(days=1) + 2 * TICK))
    assert await day_figures(store) == (11, 10, 11, 10, 1)


async def test_a_price_of_the_day_before_is_not_a_high_or_low_of_the_day(store: Store, metrics: WorkMetrics) -> None:
    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, CLOSE - TICK, {"A": "100"}, PricesUnavailable, {"A": "50"}, {"A": "51"})
    with pytest.raises(FakeTermOver):
        await market.tracker().run(FakeTerm(clock=market.clock, until=OPEN + timedelta(days=1) + TICK))
    assert await day_figures(store) == (100, 100, 100, 100, 0), "no price of today is known"
    with pytest.raises(FakeTermOver):
        await market.tracker().run(FakeTerm(clock=market.clock, until=OPEN + timedelta(days=1) + 3 * TICK))
    assert await day_figures(store) == (51, 50, 51, 50, 1)


async def test_a_tick_without_a_request_does_not_count_as_recovery(
    store: Store, metrics: WorkMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    """While new symbols wait for their turn, a tick between two failures may request nothing, and so cannot fail."""
    caplog.set_level(logging.INFO, "service.work.tracker")
    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, OPEN, PricesUnavailable, {}, PricesUnavailable, {}, {"A": "50"})
    await market.follow(5)
    events = [event for record in caplog.records if "prices" in (event := getattr(record, "event", ""))]
    assert events == ["prices_failed", "prices_recovered"]


async def test_the_open_is_the_first_price_made_in_the_session_not_the_first_received(
    store: Store, metrics: WorkMetrics
) -> None:
    """When the market opens, a source returns the last trade of the day before."""
    await store.put_positions([entry(1, "A", "1")])
    scripts: list[Script] = [{"A": price_made_at("100", OPEN - timedelta(hours=17))}, {"A": "50"}, {"A": "51"}]
    market = Market(store, metrics, OPEN, *scripts)
    await market.follow(1)
    assert await day_figures(store) == (100, 100, 100, 100, 0)
    assert (await live(store)).stale
    await market.follow(2, token=2)
    assert await day_figures(store) == (51, 50, 51, 50, 1)


async def test_the_first_trade_of_the_day_resets_high_and_low_once(store: Store, metrics: WorkMetrics) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1")])
    old = price_made_at("100", OPEN - timedelta(hours=17), "B")
    market = Market(
        store, metrics, OPEN, *({"A": price, "B": old} for price in ("10", "14", "9")), {"A": "12", "B": "90"}
    )
    await market.follow(3)
    assert await day_figures(store) == (109, 110, 114, 109, -1)
    await market.follow(1, token=2)
    assert await day_figures(store) == (102, 100, 102, 102, 2)


async def test_high_and_low_are_for_the_positions_held_now(store: Store, metrics: WorkMetrics) -> None:
    """A purchase is not a new high. The value of an empty portfolio is not the low of the positions bought later."""

    async def buying() -> Answer:
        await store.put_positions([entry(1, "A", "10", MONDAY), entry(2, "A", "3", MONDAY)])
        return {"A": "12"}

    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "1"), entry(2, "A", "0", MONDAY)])
    await Market(store, metrics, OPEN, {"A": "10"}, buying, {"A": "11"}, {"A": "10.5"}).follow(4)
    assert await day_figures(store) == (105, 100, 110, 105, 5)
    emptied = await live(store, 2)
    assert (emptied.day_high, emptied.day_low) == (Decimal(33), Decimal("31.5"))


async def test_an_answer_with_an_older_price_is_ignored_and_is_not_a_failure(
    store: Store, metrics: WorkMetrics
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    earlier = price_made_at("50", OPEN - timedelta(minutes=5))
    market = Market(store, metrics, OPEN, {"A": price_made_at("100", OPEN)}, {"A": earlier})
    await market.follow(2)
    value = await live(store)
    assert (value.value, value.oldest_price_at, value.stale) == (Decimal(100), OPEN, False)
    assert (metrics.carried._value.get(), metrics.stale._value.get()) == (0, 0)
    await market.follow(28, token=2)
    assert (await live(store)).as_of == OPEN + 29 * TICK
    assert not (await live(store)).stale
    await market.follow(2, token=3)
    value = await live(store)
    assert (value.value, value.oldest_price_at, value.stale) == (Decimal(100), OPEN, True), "the price is old by now"
    gauges = (metrics.carried, metrics.stale, metrics.held)
    assert [gauge._value.get() for gauge in gauges] == [0, 1, 1], "old prices are not failures"


@pytest.mark.parametrize(("beyond", "stale"), [(timedelta(), False), (timedelta.resolution, True)])
async def test_a_price_is_stale_once_it_is_older_than_the_limit(
    store: Store, metrics: WorkMetrics, beyond: timedelta, stale: bool
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    price = price_made_at("10", OPEN - timedelta(minutes=15) - beyond)
    await Market(store, metrics, OPEN, {"A": price}).follow(1)
    assert (await live(store)).stale is stale


async def test_a_term_that_loads_positions_until_after_the_close_writes_nothing(
    store: Store, raw: Connection, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, CLOSE - timedelta(seconds=5), {"A": "10"})
    loading_for(40, market, monkeypatch)
    with pytest.raises(FakeTermOver):
        await market.tracker().run(FakeTerm(clock=market.clock, until=CLOSE + timedelta(minutes=2)))
    assert await slots(raw) == []
    assert await store.live(UUID(int=1)) is None
    assert (counted(metrics, "written"), counted(metrics, "skipped")) == (0, 1)


async def test_a_term_that_loads_positions_slowly_begins_with_the_present_tick(
    store: Store, raw: Connection, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, OPEN - timedelta(seconds=5), {"A": "10"})
    loading_for(40, market, monkeypatch)
    await market.follow(3)
    assert await slots(raw) == [OPEN + TICK, OPEN + 2 * TICK]
    assert counted(metrics, "skipped") == 1, "the tick of the opening"


async def test_a_term_that_loads_across_midnight_does_not_use_yesterdays_positions(
    store: Store, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "A", "5", TUESDAY)])
    midnight = datetime(2026, 3, 3, 5, 0, tzinfo=UTC)
    market = Market(store, metrics, midnight - timedelta(seconds=5), {"A": "10"})
    loading_for(10, market, monkeypatch)
    with pytest.raises(FakeTermOver):
        await market.tracker(AroundTheClockCalendar()).run(FakeTerm(clock=market.clock, until=midnight + TICK))
    assert await store.live(UUID(int=1)) is None
    with pytest.raises(FakeTermOver):
        await market.tracker(AroundTheClockCalendar()).run(FakeTerm(clock=market.clock, until=midnight + 2 * TICK))
    assert ((await live(store)).session_date, (await live(store)).value) == (TUESDAY, Decimal(50))


def loading_for(seconds: float, market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    real = market.store.load_positions

    async def slow(day: date, progress: Any) -> Any:
        await market.clock.sleep(seconds)
        return await real(day, progress)

    monkeypatch.setattr(market.store, "load_positions", slow)


async def test_prices_that_arrive_after_the_close_do_not_count_for_the_session(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    async def slowly() -> Answer:
        await market.clock.sleep(30)
        return {"A": "99"}

    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, CLOSE - 2 * TICK, {"A": "10"}, slowly)
    with pytest.raises(FakeTermOver):
        await market.tracker().run(FakeTerm(clock=market.clock, until=CLOSE + timedelta(minutes=2)))
    assert ((await live(store)).value, (await store.quotes())["A"].price) == (Decimal(10), Decimal(10))
    assert (counted(metrics, "written"), counted(metrics, "skipped")) == (1, 1)


async def test_the_days_open_high_and_low_survive_a_change_of_leader(store: Store, metrics: WorkMetrics) -> None:
    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, OPEN, *({"A": price} for price in ("10", "14", "9", "12")))
    await market.follow(2)
    await market.follow(2, token=2)
    value = await live(store)
    assert (value.day_open, value.day_high, value.day_low) == (Decimal(10), Decimal(14), Decimal(9))
    assert value.token == 2


async def test_a_new_leader_carries_the_last_leaders_prices_forward(store: Store, metrics: WorkMetrics) -> None:
    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, OPEN, {"A": "10"}, PricesUnavailable)
    await market.follow(1)
    await market.follow(1, token=2)
    value = await live(store)
    assert (value.token, value.value, value.stale, value.oldest_price_at) == (2, Decimal(10), True, OPEN)


async def test_a_price_source_that_fails_or_hangs_does_not_end_the_term(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    async def hang() -> Answer:
        await asyncio.Event().wait()
        return {}

    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, OPEN, {"A": "10"}, PricesUnavailable, hang, {"A": "11"})
    await market.follow(4, interval=2.0)
    assert len(await slots(raw)) == 4
    assert ((await live(store)).value, (await live(store)).stale) == (Decimal(11), False)


async def test_the_failures_and_the_unpriced_symbols_of_the_present_term_are_known(
    store: Store, metrics: WorkMetrics
) -> None:
    await store.put_positions([entry(1, "A", "2"), entry(1, "B", "2")])
    market = Market(store, metrics, OPEN, {"A": "10"}, PricesUnavailable)
    ticks = UNPRICED_GRACE // TICK + 1
    watch = (await market.follow(ticks)).price_watch
    assert (watch.failure(market.clock.time), watch.unpriced(market.clock.time, OPEN)) == ("no answer", (1, 2))
    tracker = market.tracker()
    tracker.price_watch = watch
    with pytest.raises(FakeTermOver):
        await tracker.run(FakeTerm(2, clock=market.clock, until=market.clock.time + TICK))
    watch = tracker.price_watch
    assert (watch.failure(market.clock.time), watch.unpriced(market.clock.time, OPEN)) == (None, None)


async def test_a_database_failure_costs_ticks_and_not_the_term(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    async def breaking() -> Answer:
        await raw.execute("""
            create function meddle() returns trigger language plpgsql as $$ begin raise 'not now'; end $$;
            create trigger meddle before insert or update on portfolio_live for each row execute function meddle();
        """)
        return {"A": "11"}

    async def repairing() -> Answer:
        await raw.execute("drop trigger meddle on portfolio_live")
        return {"A": "12"}

    await store.put_positions([entry(1, "A", "1")])
    await Market(store, metrics, OPEN, {"A": "10"}, breaking, repairing).follow(3)
    assert await slots(raw) == [OPEN, OPEN + 2 * TICK]
    assert (await live(store)).value == 12


@pytest.mark.parametrize("portfolios_per_lane", [100, 1])
async def test_a_tick_that_is_cancelled_while_the_database_is_silent_ends_the_work(
    portfolios_per_lane: int, store: Store, migrated: str, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client library cancels the work once, and awaits its end without a limit before it campaigns again."""
    monkeypatch.setattr(tracking, "PORTFOLIOS_PER_LANE", portfolios_per_lane)
    monkeypatch.setattr(connecting, "ROLLBACK_LIMIT", 0.2)
    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "1")])
    port = urlsplit(migrated).port
    assert port is not None
    async with Proxy(port) as proxy, asyncio.timeout(LIMIT):
        silent = asyncio.Event()

        async def falling_silent() -> Answer:
            proxy.black_hole()
            silent.set()
            return {"A": "10"}

        distant = await Store.connect(migrated.replace(f":{port}", f":{proxy.port}"))
        work = asyncio.create_task(Market(distant, metrics, OPEN, falling_silent).tracker().run(FakeTerm()))
        await silent.wait()
        for _ in range(10):  # the tick goes on to its next statement
            await asyncio.sleep(0)
        work.cancel()
        await asyncio.wait((work,))
        assert work.cancelled()
        proxy.flow()
        await distant.close()


async def test_a_tick_whose_read_takes_as_long_as_the_limit_ends_the_term(
    store: Store, migrated: str, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent database answers no read, so the tick does not reach its write."""
    monkeypatch.setattr(write_watch, "NOTHING_COMMITTED_LIMIT", 2.0)
    monkeypatch.setattr(connecting, "ROLLBACK_LIMIT", 0.2)
    await store.put_positions([entry(1, "A", "1")])
    port = urlsplit(migrated).port
    assert port is not None
    async with Proxy(port) as proxy, asyncio.timeout(LIMIT):
        distant = await Store.connect(migrated.replace(f":{port}", f":{proxy.port}"), call_limit=2.0)
        market = Market(distant, metrics, OPEN, {"A": "10"})
        writes = distant.writes.of("lease")
        writes.begin_term()
        remaining: list[float | None] = []
        writes.on_change = lambda: remaining.append(writes.remaining())

        async def sleep(seconds: float) -> None:
            proxy.black_hole()
            await Clock.sleep(market.clock, seconds)

        monkeypatch.setattr(market.clock, "sleep", sleep)
        await market.follow(2)
        proxy.flow()
        await distant.close()
    assert (counted(metrics, "written"), counted(metrics, "failed"), remaining[-1]) == (1, 1, 0)


async def test_a_tick_that_has_nothing_to_write_leaves_no_due_write(
    store: Store, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put_positions([entry(1, "A", "1")])

    async def closing() -> Answer:
        market.clock.time = CLOSE + timedelta(seconds=1)
        return {"A": "10"}

    market = Market(store, metrics, CLOSE - 2 * TICK, {"A": "10"}, closing)

    def seconds() -> float:
        return market.clock.time.timestamp()

    monkeypatch.setattr(store, "writes", WriteWatch(clock=seconds))
    writes = store.writes.of("lease")
    remaining: list[float | None] = []

    async def sleep(seconds: float) -> None:
        await Clock.sleep(market.clock, seconds)
        if market.clock.time > CLOSE:
            writes.failed()
            remaining.append(writes.remaining())

    monkeypatch.setattr(market.clock, "sleep", sleep)
    await market.follow(10)
    assert remaining[0] is None, "a write was due"


async def test_a_tick_that_failed_before_the_close_is_not_due_at_the_next_opening(
    store: Store, raw: Connection, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise failed ticks in two sessions would end the term, as if a write had been due since the first tick."""
    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, CLOSE - TICK, {"A": "10"})

    def seconds() -> float:
        return market.clock.time.timestamp()

    monkeypatch.setattr(store, "writes", WriteWatch(clock=seconds))
    writes = store.writes.of("lease")
    remaining: list[float | None] = []
    writes.on_change = lambda: remaining.append(writes.remaining())
    await raw.execute(
        """
        create function meddle() returns trigger language plpgsql as $$ begin raise 'no room'; end $$;
        create trigger fails before insert on portfolio_live for each row execute function meddle();
        """
    )
    with pytest.raises(FakeTermOver):
        await market.tracker().run(FakeTerm(clock=market.clock, until=OPEN + timedelta(days=1) + TICK))
    assert counted(metrics, "failed") == 2
    assert set(remaining) == {None}
    await market.follow(2, token=2)
    assert set(remaining) != {None}, "two failed ticks of one session"


async def test_after_a_failed_tick_the_prices_are_those_in_the_database(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    """A tick in lanes commits its prices first. If the database then fails, the prices in memory are out of date."""

    async def failing() -> Answer:
        await raw.execute("""
            create function meddle() returns trigger language plpgsql as $$ begin raise 'not now'; end $$;
            create trigger meddle before update on portfolio_live for each row execute function meddle();
        """)
        await raw.execute("update price_live set price = 11, at = $1", market.clock.time)  # as if a tick committed 11
        return {}

    async def repairing() -> Answer:
        await raw.execute("drop trigger meddle on portfolio_live")
        raise PricesUnavailable

    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, OPEN, {"A": "10"}, failing, repairing)
    await market.follow(3)
    assert await day_figures(store) == (11, 10, 11, 10, 1)


async def test_a_second_tick_in_a_slot_replaces_its_points(store: Store, raw: Connection, metrics: WorkMetrics) -> None:
    """The next leader begins in the slot of the last leader's tick, with one more portfolio."""
    await store.put_positions([entry(2, "A", "2")])
    await Market(store, metrics, OPEN, {"A": "10"}).follow(1)
    await store.put_positions([entry(1, "A", "1")])
    await Market(store, metrics, OPEN + TICK / 3, {"A": "11"}).follow(1, token=2)
    query = "select portfolio_id, value, token from portfolio_intraday where slot = $1 order by portfolio_id"
    assert [tuple(point) for point in await raw.fetch(query, OPEN)] == [(UUID(int=1), 11, 2), (UUID(int=2), 22, 2)]


async def test_a_second_tick_in_a_slot_replaces_stale_and_priced_fraction(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    await store.put_positions([entry(1, "A", "2"), entry(1, "B", "2")])
    await Market(store, metrics, OPEN, {"A": "10"}).follow(1)
    query = "select priced_fraction, stale from portfolio_intraday where slot = $1"
    first = await raw.fetchrow(query, OPEN)
    await Market(store, metrics, OPEN + TICK / 3, {"B": "11"}).follow(1, token=2)
    assert (tuple(first or ()), tuple(await raw.fetchrow(query, OPEN) or ())) == ((Decimal("0.5"), False), (1, True))


async def test_a_newer_term_ends_the_work_and_rolls_the_tick_back(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    async def lose() -> Answer:
        await store.claim_fence(FakeTerm(2, "two"))
        return {"A": "11"}

    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, OPEN, {"A": "10"}, lose)
    with pytest.raises(StaleTerm):
        await market.tracker().run(FakeTerm())
    assert await slots(raw) == [OPEN]
    assert ((await live(store)).value, (await store.quotes())["A"].price) == (Decimal(10), Decimal(10))


async def test_a_term_that_ends_between_two_steps_writes_nothing_more(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, OPEN, {"A": "10"})
    for checks in range(5):
        with pytest.raises(FakeTermOver):
            await market.tracker().run(FakeTerm(checks=checks))
    assert await slots(raw) == []


async def test_a_term_that_ends_while_values_are_computed_writes_nothing(
    store: Store, raw: Connection, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    term = FakeTerm()

    def slow(*args: Any) -> Values:
        term.checks = 0
        return value_block(*args)

    monkeypatch.setattr(tracking, "value_block", slow)
    await store.put_positions([entry(1, "A", "1")])
    with pytest.raises(FakeTermOver):
        await Market(store, metrics, OPEN, {"A": "10"}).tracker().run(term)
    assert await slots(raw) == []


async def test_there_is_no_tick_outside_of_sessions(store: Store, raw: Connection, metrics: WorkMetrics) -> None:
    await store.put_positions([entry(1, "A", "1")])
    friday_evening = datetime(2026, 2, 27, 21, 0, tzinfo=UTC)
    market = Market(store, metrics, friday_evening, {"A": "10"})
    tracker = market.tracker()
    assert tracker.next_run == OPEN
    with pytest.raises(FakeTermOver):
        await tracker.run(FakeTerm(clock=market.clock, until=OPEN + TICK))
    assert await slots(raw) == [OPEN]
    assert max(market.clock.slept) <= 60, "a change of the clock takes effect within a minute"


async def test_a_clock_set_back_does_not_stop_the_ticks(store: Store, raw: Connection, metrics: WorkMetrics) -> None:
    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, OPEN + timedelta(hours=2), {"A": "10"})
    tracker = market.tracker()

    async def set_back(seconds: float) -> None:
        await market.clock.sleep(seconds)
        if len(market.clock.slept) == 1:
            market.clock.time -= timedelta(hours=1)

    tracker._sleep = set_back
    with pytest.raises(FakeTermOver):
        await tracker.run(FakeTerm(checks=11))
    assert sum(market.clock.slept) < 600


async def test_listeners_are_notified_once_a_tick_and_after_its_commit(store: Store, metrics: WorkMetrics) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "1")])
    notices = store.listen()
    assert (await anext(notices)).missed
    heard = asyncio.ensure_future(anext(notices))
    await Market(store, metrics, OPEN, {"A": "10"}).follow(1)
    assert not (await heard).missed
    assert (await live(store)).value == 10


async def test_a_portfolio_deleted_meanwhile_does_not_fail_the_tick(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    async def deleting() -> Answer:
        await raw.execute("delete from portfolio where id = $1", UUID(int=2))
        return {"A": "11"}

    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "1")])
    await Market(store, metrics, OPEN, {"A": "10"}, deleting).follow(2)
    assert (await live(store)).value == 11
    assert await store.live(UUID(int=2)) is None
    assert await slots(raw, 2) == []


async def test_positions_count_from_the_day_they_are_valid(store: Store, metrics: WorkMetrics) -> None:
    await store.put_positions(
        [entry(1, "A", "1"), entry(1, "A", "5", TUESDAY), entry(1, "B", "7"), entry(1, "B", "0", MONDAY)]
    )
    market = Market(store, metrics, OPEN, {"A": "10", "B": "1"})
    await market.follow(1)
    assert (await live(store)).value == 10
    assert market.prices.asked == [{"A"}]


async def test_old_days_of_intraday_points_are_dropped(store: Store, raw: Connection, metrics: WorkMetrics) -> None:
    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, OPEN - timedelta(days=35), {"A": "10"})
    await market.follow(1)
    market.clock.time = OPEN
    await market.follow(1)
    assert await slots(raw) == [OPEN]


async def test_thirty_days_of_intraday_points_are_kept(store: Store, raw: Connection, metrics: WorkMetrics) -> None:
    await store.put_positions([entry(1, "A", "1")])
    thursday = OPEN + timedelta(days=3)
    days = [thursday - timedelta(days=age) for age in (31, 30, 0)]
    for token, day in enumerate(days, start=1):
        market = Market(store, metrics, day, {"A": "10"})
        await market.follow(1, token=token)
    assert await slots(raw) == days[1:]


async def test_old_days_that_a_reader_locks_are_dropped_later_and_delay_no_tick(
    migrated: str, raw: Connection, metrics: WorkMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    """The wait for this lock is limited to 2 s, because new readers of intraday points queue behind a waiting drop."""

    async def leaving() -> Answer:
        await reader.rollback()
        return {"A": "10"}

    async with await Store.connect(migrated, call_limit=3600) as store, asyncio.timeout(120):
        await store.put_positions([entry(1, "A", "1")])
        long_ago = OPEN - timedelta(days=35)
        await Market(store, metrics, long_ago, {"A": "10"}).follow(1)
        reader = raw.transaction()
        await reader.start()
        await raw.fetch("select from portfolio_intraday")
        await Market(store, metrics, OPEN, {"A": "10"}, leaving, {"A": "10"}).follow(21, token=2)
    assert await slots(raw) == [OPEN + number * TICK for number in range(21)], "the old day is gone"
    assert (counted(metrics, "written"), counted(metrics, "failed")) == (22, 0)
    assert len([line for line in caplog.messages if "not dropped yet" in line]) == 1, "tried again after a pause"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_every_row_of_every_tick_equals_the_decimal_reference(
    store: Store, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The test runs the last three ticks of a session and the first five of the next, in two lanes.

    There are 2,000 portfolios, and positions change between ticks. Some portfolios are empty, have short positions, or
    have no price. Some prices are missing, older than the previous ones, invalid, or from before the opening.
    """
    monkeypatch.setattr(tracking, "PORTFOLIOS_PER_LANE", 1_000)
    random = Random(seed)
    symbols = [f"S{number}" for number in range(40)]
    tuesday = NyseCalendar().next_open(CLOSE)
    portfolios = [UUID(int=random.getrandbits(128)) for _ in range(2_000)]
    held: dict[UUID, dict[str, Decimal]] = {portfolio: {} for portfolio in portfolios}
    course = ReferenceTicks()
    expected: dict[UUID, LiveValue] = {}
    compared = 0

    async def trade(some: Iterable[UUID]) -> None:
        entries = []
        for portfolio in some:
            for symbol in random.sample(symbols, random.choice([0, 1, 1, 3, 6])):
                quantity = Decimal(random.randint(-(10**14), 10**14)).scaleb(-8) * random.choice([0, 1, 1, 1])
                held[portfolio][symbol] = quantity
                entries.append(PositionEntry(portfolio, USER, symbol, quantity, LONG_AGO))
        await store.put_positions(entries)

    async def answer() -> Answer:
        now = market.clock.time
        session = NyseCalendar().current(now)
        assert session is not None
        answers = {}
        for symbol in symbols[3:]:  # the first three symbols have no price
            price = Decimal(random.randint(1, 10**9)).scaleb(-6)
            at = now - random.choice([timedelta(), TICK, 3 * TICK, timedelta(minutes=random.randint(10, 20))])
            if random.random() < 0.7:
                answers[symbol] = Price(symbol, price * (random.random() < 0.9), at)
        holdings = {portfolio: tuple((s, q) for s, q in held[portfolio].items() if q) for portfolio in portfolios}
        expected.update(course.tick(session, now, [price for price in answers.values() if price.price], holdings, 1))
        return answers

    async def between(seconds: float) -> None:
        nonlocal compared
        if expected:
            rows = await store.live_many(portfolios)
            assert [(row, expected[portfolio]) for portfolio, row in rows.items() if row != expected[portfolio]] == []
            compared += len(rows)
            expected.clear()
            await trade(random.sample(portfolios, 300))
        await market.clock.sleep(seconds)

    await store.put_positions(PositionEntry(portfolio, USER, "S0", Decimal(0), LONG_AGO) for portfolio in portfolios)
    await trade(portfolios)
    market = Market(store, metrics, CLOSE - 3 * TICK, answer)
    tracker = market.tracker()
    tracker._sleep = between
    with pytest.raises(FakeTermOver):
        await tracker.run(FakeTerm(clock=market.clock, until=tuesday.open + 5 * TICK))
    assert compared == len(portfolios) * (3 + 5)


async def test_a_tick_without_portfolios_succeeds(store: Store, metrics: WorkMetrics) -> None:
    tracker = await Market(store, metrics, OPEN, {"A": "10"}).follow(1)
    assert tracker.last_run == OPEN


async def test_a_price_jump_like_a_split_is_used_unchanged_and_reported(
    store: Store, metrics: WorkMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1")])
    scripts = [{"A": "400", "B": "10"}, {"A": "100", "B": "14.99"}, {"A": "150", "B": "10"}]
    await Market(store, metrics, OPEN, *scripts).follow(3)
    assert (await live(store)).value == 160
    jumps = [line for line in caplog.messages if "split" in line]
    assert jumps == [
        "1 prices look like a stock split and are used unchanged: A from 400.000000 to 100.000000",
        "1 prices look like a stock split and are used unchanged: A from 100.000000 to 150.000000",
    ]


async def test_the_positions_are_loaded_before_the_market_opens(
    store: Store, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "A", "5", MONDAY)])
    market = Market(store, metrics, OPEN - timedelta(hours=1), {"A": "10"})
    days: list[date] = []
    real = store.load_positions

    async def load(day: date, *args: Any) -> Any:
        days.append(day)
        return await real(day, *args)

    monkeypatch.setattr(store, "load_positions", load)
    with pytest.raises(FakeTermOver):
        await market.tracker(interval=3600).run(FakeTerm(clock=market.clock, until=OPEN + timedelta(days=1, hours=1)))
    assert days == [MONDAY], "once a term"
    assert (await live(store)).value == 50


async def test_the_tracker_reports_its_progress_while_it_loads_positions(
    store: Store, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    market = Market(store, metrics, OPEN, {"A": "10"})
    tracker = market.tracker()
    seen: list[Loading | None] = []
    term = FakeTerm(clock=market.clock, until=OPEN + TICK)
    real = term.check

    def check() -> None:
        seen.append(tracker.loading)
        real()

    monkeypatch.setattr(term, "check", check)
    original = store.load_positions

    async def load(day: date, progress: Any) -> Any:
        book = await original(day, progress)
        progress(1, 1)
        return book

    monkeypatch.setattr(store, "load_positions", load)
    with pytest.raises(FakeTermOver):
        await tracker.run(term)
    assert Loading(1, 1) in seen
    assert tracker.loading is None
