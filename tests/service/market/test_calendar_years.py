"""The calendar, compared with the exchange's rules for the years up to 2060.

A half day whose label gives no valid closing time has no session.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

import pytest

from service.market.calendar import NEW_YORK, NyseCalendar
from service.work.timetable import due_runs, next_due

NYSE = NyseCalendar()
MONDAY, THURSDAY = 0, 3
YEARS = range(2026, 2061)


def nth(year: int, month: int, weekday: int, n: int) -> date:
    """The date of the n-th `weekday` of a month, or of the last one if n is 0."""
    if n == 0:
        return nth(year, month + 1, weekday, 1) - timedelta(days=7)
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (n - 1))


def good_friday(year: int) -> date:
    """Two days before Easter, by the algorithm of Meeus, Jones and Butcher."""
    century, of_century = divmod(year, 100)
    golden = year % 19
    leaps = century - century // 4 - (century - (century + 8) // 25 + 1) // 3
    epact = (19 * golden + leaps + 15) % 30
    weekday = (32 + 2 * (century % 4) + 2 * (of_century // 4) - epact - of_century % 4) % 7
    month, day = divmod(epact + weekday - 7 * ((golden + 11 * epact + 22 * weekday) // 451) + 114, 31)
    return date(year, month, day + 1) - timedelta(days=2)


def observed(day: date) -> date:
    return day + timedelta(days={5: -1, 6: 1}.get(day.weekday(), 0))


def closed(year: int) -> set[date]:
    """The holidays of a year.

    By the exchange's rule 7.2, a holiday on a Sunday moves to Monday. A holiday on a Saturday moves to Friday, except
    at a year's end.
    """
    new_year = date(year, 1, 1)
    return {
        new_year if new_year.weekday() == 5 else observed(new_year),
        nth(year, 1, MONDAY, 3),
        nth(year, 2, MONDAY, 3),
        good_friday(year),
        nth(year, 5, MONDAY, 0),
        observed(date(year, 6, 19)),
        observed(date(year, 7, 4)),
        nth(year, 9, MONDAY, 1),
        nth(year, 11, THURSDAY, 4),
        observed(date(year, 12, 25)),
    }


def half(year: int) -> set[date]:
    """The days before Independence Day and Christmas, unless they are closed, and the day after Thanksgiving."""
    return {date(year, 7, 3), date(year, 12, 24), nth(year, 11, THURSDAY, 4) + timedelta(days=1)} - closed(year)


def days(year: int) -> Iterator[date]:
    return (date(year, 1, 1) + timedelta(days=n) for n in range((date(year + 1, 1, 1) - date(year, 1, 1)).days))


@pytest.mark.parametrize("year", YEARS)
def test_every_future_session_matches_the_exchange_s_rules(year: int) -> None:
    expected = [
        (day, time(13) if day in half(year) else time(16))
        for day in days(year)
        if day.weekday() < 5 and day not in closed(year)
    ]
    sessions = NYSE.sessions(date(year, 1, 1), date(year, 12, 31))
    assert [(session.date, session.close.astimezone(NEW_YORK).time()) for session in sessions] == expected
    assert {session.open.astimezone(NEW_YORK).time() for session in sessions} == {time(9, 30)}


def test_a_service_that_runs_for_years_continues_across_every_new_year() -> None:
    for year in range(2000, 2060):
        midnight = datetime(year + 1, 1, 1, tzinfo=NEW_YORK).astimezone(UTC)
        last, following = NYSE.last_closed(midnight), NYSE.next_open(midnight)
        assert (last.date.year, following.date.year) == (year, year + 1)
        assert following.open - last.close < timedelta(days=5)
        assert next_due("eod", NYSE, midnight) == following.close
        assert {(run.job, run.session) for run in due_runs(NYSE, midnight, 1)} >= {("eod", last)}


@pytest.mark.parametrize("words", ["9:00pm", "4:00pm", "9:30pm", "12:75pm"])
def test_a_half_day_with_a_close_outside_of_the_session_has_no_session(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calendar = NyseCalendar()
    monkeypatch.setattr(calendar, "_half_days", {date(2026, 11, 27): f"A day (markets close at {words})"})
    assert calendar.session(date(2026, 11, 27)) is None
