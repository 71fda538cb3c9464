"""The calendars, compared with dates that the exchange published."""

import logging
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.market.calendar import CALENDARS, NEW_YORK, AroundTheClockCalendar, Calendar, NyseCalendar

NYSE = NyseCalendar()


def new_york(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=NEW_YORK).astimezone(UTC)


@pytest.mark.parametrize(
    "closed",
    [
        "2024-01-01",
        "2024-01-15",
        "2024-02-19",
        "2024-03-29",
        "2024-05-27",
        "2024-06-19",
        "2024-07-04",
        "2024-09-02",
        "2024-11-28",
        "2024-12-25",
        "2025-01-09",  # mourning for President Carter
        "2025-04-18",
        "2026-04-03",
        "2026-07-03",  # the 4th is a Saturday
        "2027-06-18",  # the 19th is a Saturday
        "2027-07-05",  # the 4th is a Sunday
        "2027-12-24",  # the 25th is a Saturday
        "2012-10-29",  # hurricane Sandy
        "2001-09-11",
        "2026-02-14",  # a Saturday
        "2026-02-15",  # a Sunday
    ],
)
def test_nyse_has_no_session_on_a_holiday_or_a_weekend(closed: str) -> None:
    assert NYSE.session(date.fromisoformat(closed)) is None


@pytest.mark.parametrize("half", ["2024-07-03", "2024-11-29", "2024-12-24", "2025-07-03", "2026-11-27", "2028-07-03"])
def test_a_half_day_closes_at_13_in_new_york(half: str) -> None:
    day = date.fromisoformat(half)
    session = NYSE.session(day)
    assert session is not None
    assert session.close == new_york(day.year, day.month, day.day, 13)


@pytest.mark.parametrize(
    "ordinary",
    [
        "2021-12-31",  # New Year's Day on a Saturday is not observed on the Friday
        "2024-10-14",  # Columbus Day: banks are closed, the exchange is not
        "2024-11-11",  # Veterans Day
        "2027-07-02",
        "2026-12-31",
    ],
)
def test_an_ordinary_day_is_open_from_930_to_16_in_new_york(ordinary: str) -> None:
    day = date.fromisoformat(ordinary)
    session = NYSE.session(day)
    assert session is not None
    assert session.open == new_york(day.year, day.month, day.day, 9, 30)
    assert session.close == new_york(day.year, day.month, day.day, 16)


def test_the_clocks_of_new_york_move_the_session_in_utc() -> None:
    before, after = NYSE.session(date(2026, 3, 6)), NYSE.session(date(2026, 3, 9))
    assert before is not None
    assert after is not None
    assert before.open == datetime(2026, 3, 6, 14, 30, tzinfo=UTC)
    assert after.open == datetime(2026, 3, 9, 13, 30, tzinfo=UTC)


def test_the_number_of_sessions_in_a_year_is_the_exchanges() -> None:
    assert [len(NYSE.sessions(date(y, 1, 1), date(y, 12, 31))) for y in (2012, 2023, 2024, 2025)] == [
        250,
        250,
        252,
        250,
    ]


def test_a_session_begins_with_its_open_and_is_over_at_its_close() -> None:
    open_, close = new_york(2026, 2, 13, 9, 30), new_york(2026, 2, 13, 16)
    tick = timedelta(microseconds=1)
    assert NYSE.current(open_ - tick) is None
    assert NYSE.current(open_) is not None
    assert NYSE.current(close - tick) is not None
    assert NYSE.current(close) is None
    assert NYSE.last_closed(close).date == date(2026, 2, 13)
    assert NYSE.last_closed(close - tick).date == date(2026, 2, 12)
    assert NYSE.next_open(open_ - tick).date == date(2026, 2, 13)
    assert NYSE.next_open(open_).date == date(2026, 2, 17)  # over a weekend and Washington's Birthday


def test_a_half_day_with_an_unreadable_label_has_no_session_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calendar = NyseCalendar()
    labels = {date(2026, 11, 27): "Day after Thanksgiving Day (markets close early)", date(2026, 11, 30): "at 9:00pm"}
    monkeypatch.setattr(calendar, "_half_days", labels)
    with caplog.at_level(logging.ERROR):
        assert [calendar.session(day) for day in labels] == [None, None]
        assert calendar.session(date(2026, 11, 27)) is None
    assert len(caplog.records) == 2


def test_round_the_clock_days_are_23_24_and_25_hours_long() -> None:
    calendar = AroundTheClockCalendar()
    lengths = [calendar.session(day) for day in (date(2026, 3, 8), date(2026, 3, 9), date(2026, 11, 1))]
    assert [(s.close - s.open) / timedelta(hours=1) for s in lengths] == [23, 24, 25]


@given(
    name=st.sampled_from(sorted(CALENDARS)),
    now=st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds are naive
)
def test_every_instant_lies_between_the_last_close_and_the_next_open(name: str, now: datetime) -> None:
    calendar: Calendar = {"NYSE": NYSE}.get(name) or CALENDARS[name]()
    last, current, following = calendar.last_closed(now), calendar.current(now), calendar.next_open(now)
    assert last.close <= now < following.open
    if current is not None:
        assert last.close <= current.open <= now < current.close <= following.open
    between = calendar.sessions(last.date, following.date)
    assert between == [last, *([current] if current is not None else []), following]
