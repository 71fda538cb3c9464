"""The slots of the tracker's ticks."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.market.calendar import CALENDARS, AroundTheClockCalendar, NyseCalendar, Session
from service.market.tick_schedule import EPOCH, TickSchedule

OPEN = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
CLOSE = datetime(2026, 3, 2, 21, 0, tzinfo=UTC)
TICK = timedelta(seconds=30)
NYSE = TickSchedule(NyseCalendar(), TICK)

GRIDS = st.builds(
    TickSchedule,
    st.sampled_from([calendar() for calendar in CALENDARS.values()]),
    st.sampled_from([0.25, 2.0, 7.0, 30.0, 1000.0]).map(lambda seconds: timedelta(seconds=seconds)),
)
INSTANTS = st.builds(
    lambda instant, seconds: instant + timedelta(seconds=seconds),
    st.sampled_from([OPEN, CLOSE]),
    st.floats(-2000, 2000) | st.floats(0, 1e8),
)
"""Instants around the open and the close, and at any time in three years."""


def places(schedule: TickSchedule, session: Session, first: datetime) -> Iterator[datetime]:
    """The multiples of the interval in the session, from `first` on."""
    place = EPOCH - (EPOCH - max(first, session.open)) // schedule.interval * schedule.interval
    while place < session.close:
        yield place
        place += schedule.interval


@given(GRIDS, INSTANTS)
def test_a_slot_is_the_latest_multiple_of_the_interval_that_is_not_after_now(
    schedule: TickSchedule, now: datetime
) -> None:
    slot = schedule.slot(now)
    assert (slot - EPOCH) % schedule.interval == timedelta()
    assert slot <= now < slot + schedule.interval


@given(GRIDS, INSTANTS)
def test_the_next_tick_is_the_first_slot_after_now_in_a_session(schedule: TickSchedule, now: datetime) -> None:
    due = schedule.next_tick(now)
    session, later = schedule.session(now), now + timedelta.resolution
    following = schedule.calendar.next_open(session.open)
    assert due == next(chain(places(schedule, session, later), places(schedule, following, later)))


@given(GRIDS, INSTANTS, st.floats(0, 1, exclude_max=True))
def test_the_next_tick_stays_the_same_until_it_is_due(schedule: TickSchedule, now: datetime, part: float) -> None:
    due = schedule.next_tick(now)
    later = min(now + part * (due - now), due - timedelta.resolution)
    assert schedule.next_tick(later) == due


def test_a_session_has_a_tick_at_each_of_its_slots() -> None:
    ticks = [NYSE.next_tick(OPEN - timedelta(hours=3))]
    while ticks[-1] < CLOSE:
        ticks.append(NYSE.next_tick(ticks[-1] + timedelta(seconds=len(ticks) % 30)))
    *of_monday, of_tuesday = ticks
    assert of_monday == [OPEN + number * TICK for number in range(780)]
    assert of_tuesday == OPEN + timedelta(days=1)


def test_a_session_that_opens_between_two_slots_begins_with_the_later_slot() -> None:
    schedule = TickSchedule(NyseCalendar(), timedelta(seconds=7))
    first = schedule.next_tick(OPEN - timedelta(hours=1))
    assert OPEN < first < OPEN + schedule.interval
    assert first.timestamp() % 7 == 0


def test_a_market_that_never_closes_has_a_tick_across_midnight() -> None:
    midnight = datetime(2026, 3, 3, 5, 0, tzinfo=UTC)
    schedule = TickSchedule(AroundTheClockCalendar(), timedelta(seconds=2))
    assert schedule.next_tick(midnight - timedelta(seconds=1)) == midnight


@pytest.mark.parametrize("now", [OPEN - timedelta(hours=60), OPEN - timedelta.resolution, OPEN, CLOSE - TICK])
def test_the_session_is_the_open_one_or_else_the_next_one(now: datetime) -> None:
    assert NYSE.session(now).open == OPEN
    assert NYSE.session(CLOSE).open == OPEN + timedelta(days=1)


@given(INSTANTS, st.timedeltas(timedelta(), timedelta(hours=8)), st.integers(0, 3))
def test_missed_ticks_are_the_slots_of_the_session_that_passed_without_a_tick(
    before: datetime, late: timedelta, ticks: int
) -> None:
    due = NYSE.next_tick(before)
    session = NYSE.session(due)
    passed = sum(place <= due + late for place in places(NYSE, session, due))
    assert NYSE.missed_ticks(due, due + late, ticks) == max(0, passed - ticks)


@pytest.mark.parametrize(
    ("due", "now", "ticks", "missed_ticks"),
    [
        (OPEN + timedelta(seconds=41), OPEN + timedelta(seconds=42), 1, 0),  # the first tick of a term comes at once
        (OPEN + timedelta(seconds=41), OPEN + timedelta(seconds=42), 0, 1),
        (OPEN - timedelta(seconds=5), OPEN - timedelta(seconds=1), 0, 0),
        (OPEN - timedelta(seconds=5), OPEN + timedelta(seconds=35), 1, 1),
        (CLOSE - TICK, CLOSE + timedelta(hours=9), 0, 1),
        (OPEN, OPEN - timedelta(hours=1), 0, 0),  # the clock was set back
    ],
)
def test_a_tick_outside_the_schedule_counts_for_its_slot(
    due: datetime, now: datetime, ticks: int, missed_ticks: int
) -> None:
    assert NYSE.missed_ticks(due, now, ticks) == missed_ticks
