"""A live value becomes stale with time, even if no task writes it. A value written as stale stays stale."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from service.market.calendar import Calendar, NyseCalendar
from service.market.overrides import MarketOverride, OverriddenCalendar
from service.portfolio.freshness import STALE_AFTER, Freshness, is_fresh
from service.portfolio.records import LiveValue
from tests.support.served_api import NOON, PORTFOLIO, Served

FRIDAY, MONDAY = NyseCalendar().sessions(date(2026, 2, 27), date(2026, 3, 2))
SECOND, MOMENT = timedelta(seconds=1), timedelta.resolution
SUNDAY = datetime(2026, 3, 1, 17, tzinfo=UTC)
LAST_TICK = FRIDAY.close - 30 * SECOND


def value(as_of: datetime, oldest: datetime | None, *, stale: bool = False) -> LiveValue:
    money = None if oldest is None else Decimal(1)
    return LiveValue(
        UUID(int=1), as_of.date(), as_of, money, money, money, money, Decimal(oldest is not None), stale, oldest, 1
    )


def is_stale(seen: LiveValue, now: datetime, calendar: Calendar | None = None) -> bool:
    return Freshness(calendar or NyseCalendar(), lambda: now).of(seen).stale


def test_the_value_of_fridays_close_is_fresh_until_the_market_opens_on_monday() -> None:
    seen = value(LAST_TICK, LAST_TICK - SECOND)
    for now in (FRIDAY.close, SUNDAY, MONDAY.open - MOMENT):
        assert not is_stale(seen, now)
    assert is_stale(seen, MONDAY.open)


def test_a_value_whose_tracker_died_in_mid_session_becomes_and_stays_stale() -> None:
    died = FRIDAY.open + timedelta(hours=2)
    seen = value(died, died)
    assert not is_stale(seen, died + STALE_AFTER)
    for now in (died + STALE_AFTER + MOMENT, FRIDAY.close, SUNDAY):
        assert is_stale(seen, now)


def test_a_value_of_an_earlier_session_is_stale() -> None:
    assert is_stale(value(LAST_TICK, LAST_TICK), MONDAY.close + SECOND)


def test_the_age_of_a_value_is_that_of_its_oldest_price_or_of_its_tick() -> None:
    now = FRIDAY.open + timedelta(hours=1)
    assert is_stale(value(now, now - STALE_AFTER - SECOND), now)
    assert not is_stale(value(now, None), now)
    assert is_stale(value(now - STALE_AFTER - SECOND, None), now)


def test_a_value_written_as_stale_stays_stale() -> None:
    assert is_stale(value(LAST_TICK, LAST_TICK, stale=True), FRIDAY.close)


def test_the_market_hours_are_those_of_the_overridden_calendar() -> None:
    """Monday's session is cancelled, so Friday's close is still the last moment of the market."""
    calendar = OverriddenCalendar(NyseCalendar())
    calendar.override({MONDAY.date: MarketOverride(MONDAY.date, None, None, "storm")})
    assert not is_stale(value(LAST_TICK, LAST_TICK), MONDAY.open + timedelta(hours=3), calendar)


@pytest.mark.parametrize(("later", "stale"), [(timedelta(), False), (STALE_AFTER, False), (STALE_AFTER + SECOND, True)])
async def test_the_answer_has_the_present_staleness_of_the_live_value(
    served: Served, later: timedelta, stale: bool
) -> None:
    await served.write_live("1")
    served.now = NOON + later
    status, answer = await served.get(f"/portfolios/{PORTFOLIO}/live")
    assert (status, answer["value"], answer["stale"]) == (200, "1.0000", stale)


@pytest.mark.parametrize("ahead", [3 * SECOND, timedelta(hours=1), timedelta(days=400)])
def test_a_value_from_the_future_is_stale(ahead: timedelta) -> None:
    now = FRIDAY.open + timedelta(hours=1)
    assert is_stale(value(now, now + ahead), now)
    assert is_stale(value(now + ahead, None), now)
    assert is_stale(value(now + ahead, now), now)  # old prices from a leader whose clock is ahead
    assert not is_stale(value(now + SECOND, now + SECOND), now)  # ahead by less than the clock tolerance
    assert is_fresh(now, now) and not is_fresh(now + ahead, now)


def test_after_the_close_a_price_from_seconds_after_it_is_fresh() -> None:
    assert not is_stale(value(LAST_TICK, FRIDAY.close + 5 * SECOND), SUNDAY)
