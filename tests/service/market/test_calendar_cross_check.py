"""The calendars, compared with every session of another library and with the rules of daylight saving time."""

import warnings
from datetime import UTC, date, datetime, timedelta

import exchange_calendars
import pytest

from service.market.calendar import AroundTheClockCalendar, NyseCalendar, Session
from service.work.timetable import due_at

FIRST_YEAR = 2000
NEXT_YEAR = datetime.now(UTC).year + 1
YEARS = range(FIRST_YEAR, NEXT_YEAR + 1)
NYSE = NyseCalendar()


def change_days(year: int) -> tuple[date, date]:
    """The Sundays on which New York's clocks go forward and back, by the laws of 1986 and 2005."""
    if year < 2007:
        return nth_sunday(year, 4, 1), nth_sunday(year, 11, 1) - timedelta(days=7)
    return nth_sunday(year, 3, 2), nth_sunday(year, 11, 1)


def nth_sunday(year: int, month: int, n: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=6 - first.weekday() + 7 * (n - 1))


def test_every_session_s_open_and_close_is_the_same_in_exchange_calendars() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns about the library's code
        other = exchange_calendars.get_calendar("XNYS", start=f"{FIRST_YEAR}-01-01", end=f"{NEXT_YEAR}-12-31")
        theirs = [
            Session(day.date(), row.open.to_pydatetime(), row.close.to_pydatetime())
            for day, row in other.schedule.iterrows()
        ]
    ours = NYSE.sessions(date(FIRST_YEAR, 1, 1), date(NEXT_YEAR, 12, 31))
    assert sorted(set(ours) ^ set(theirs), key=lambda session: session.date) == []
    assert len(theirs) > 250 * len(YEARS)


@pytest.mark.parametrize("year", YEARS)
def test_the_sessions_around_a_change_of_the_clocks_move_by_an_hour_in_utc(year: int) -> None:
    forward, back = change_days(year)
    for sunday, before, after in ((forward, "14:30", "13:30"), (back, "13:30", "14:30")):
        sessions = NYSE.sessions(sunday - timedelta(days=4), sunday + timedelta(days=4))
        for session in sessions:
            assert f"{session.open:%H:%M}" == (before if session.date < sunday else after)
            assert session.close - session.open in (timedelta(hours=6.5), timedelta(hours=3.5))
        assert {session.date < sunday for session in sessions} == {True, False}


@pytest.mark.parametrize("year", YEARS)
def test_round_the_clock_days_of_clock_changes_have_23_and_25_hours_and_each_job_is_due_once(year: int) -> None:
    forward, back = change_days(year)
    calendar = AroundTheClockCalendar()
    for sunday, hours, offset in ((forward, 23, 4), (back, 25, 5)):
        session = calendar.session(sunday)
        assert session.close - session.open == timedelta(hours=hours)
        evening = calendar.session(sunday - timedelta(days=1))
        assert due_at("snapshot", evening) == datetime(sunday.year, sunday.month, sunday.day, 4 + offset, tzinfo=UTC)
        assert due_at("reconstruction", evening) - due_at("snapshot", evening) == timedelta(minutes=30)
