"""The simulated source: every task sees the same prices, and prices change."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.market.calendar import AroundTheClockCalendar, NyseCalendar
from service.prices import Price, PriceSource
from service.prices.simulated import SimulatedPrices

SYMBOLS = ["AAPL", "BRK.B", "SPY"]
NOON = datetime(2026, 2, 13, 17, 0, tzinfo=UTC)


def source(now: datetime, *, seed: int = 1) -> PriceSource:
    return SimulatedPrices(seed, NyseCalendar(), lambda: now)


async def test_two_tasks_see_the_same_price_at_the_same_second() -> None:
    one, other = source(NOON), source(NOON + timedelta(milliseconds=999))
    assert await one.latest(SYMBOLS) == await other.latest(SYMBOLS[::-1])


async def test_a_price_stays_the_same_from_one_release_to_the_next() -> None:
    assert await source(NOON).latest(["AAPL"]) == {"AAPL": Price("AAPL", Decimal("168.86"), NOON)}


async def test_prices_change_within_seconds_in_small_steps() -> None:
    seconds = [(await source(NOON + timedelta(seconds=s)).latest(["AAPL"]))["AAPL"].price for s in range(120)]
    assert len(set(seconds)) > 40
    assert all(abs(later / earlier - 1) < Decimal("0.002") for earlier, later in pairwise(seconds))


async def test_each_seed_and_symbol_has_different_prices() -> None:
    one, other = await source(NOON).latest(SYMBOLS), await source(NOON, seed=2).latest(SYMBOLS)
    assert len({price.price for price in [*one.values(), *other.values()]}) == 6


@given(seed=st.integers(), symbol=st.text(min_size=1), now=st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)))  # noqa: DTZ001 - bounds are naive
async def test_a_price_is_positive_and_in_whole_cents(seed: int, symbol: str, now: datetime) -> None:
    clock = now.replace(tzinfo=UTC)
    found = (await SimulatedPrices(seed, AroundTheClockCalendar(), lambda: clock).latest([symbol]))[symbol]
    assert found.price > 0
    assert found.price.as_tuple().exponent == -2


async def test_after_the_close_the_latest_price_is_the_close() -> None:
    friday = date(2026, 2, 13)
    closes = await source(NOON + timedelta(days=2)).closes(SYMBOLS, friday)
    assert closes["SPY"].at == datetime(2026, 2, 13, 21, 0, tzinfo=UTC)
    assert await source(NOON + timedelta(days=2)).latest(SYMBOLS) == closes


async def test_there_are_no_closes_before_the_close_or_without_a_session() -> None:
    at_close = datetime(2026, 2, 13, 21, 0, tzinfo=UTC)
    assert await source(at_close - timedelta(seconds=1)).closes(SYMBOLS, date(2026, 2, 13)) == {}
    assert len(await source(at_close).closes(SYMBOLS, date(2026, 2, 13))) == 3
    assert await source(at_close).closes(SYMBOLS, date(2026, 2, 8)) == {}
