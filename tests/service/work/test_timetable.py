"""The times at which jobs are due."""

from datetime import UTC, date, datetime

import pytest

from service.market.calendar import NEW_YORK, AroundTheClockCalendar, NyseCalendar
from service.work.timetable import due_at, due_runs, last_sessions, next_due

NYSE = NyseCalendar()
ALWAYS = AroundTheClockCalendar()


def new_york(day: str, clock: str) -> datetime:
    return datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=NEW_YORK).astimezone(UTC)


@pytest.mark.parametrize(
    ("session", "eod", "morning"),
    [
        ("2026-03-02", "16:00", "2026-03-03"),
        ("2026-11-27", "13:00", "2026-11-28"),  # a half day, and the morning after is a Saturday
        ("2026-03-06", "16:00", "2026-03-07"),
        ("2026-10-30", "16:00", "2026-10-31"),  # a Friday; clocks change on Sunday
    ],
)
def test_a_session_is_captured_at_its_close_and_settled_the_next_morning(session: str, eod: str, morning: str) -> None:
    found = NYSE.session(date.fromisoformat(session))
    assert found is not None
    assert due_at("eod", found) == new_york(session, eod)
    assert due_at("snapshot", found) == new_york(morning, "04:00")
    assert due_at("reconstruction", found) == new_york(morning, "04:30")


def test_a_session_that_ends_at_midnight_is_settled_four_hours_later() -> None:
    assert due_at("snapshot", ALWAYS.session(date(2026, 3, 2))) == new_york("2026-03-03", "04:00")


def test_the_snapshot_is_due_at_four_in_new_york_in_summer_and_winter() -> None:
    hours = {
        due_at("snapshot", session).astimezone(NEW_YORK).strftime("%H:%M")
        for session in ALWAYS.sessions(date(2026, 1, 1), date(2026, 12, 31))
    }
    assert hours == {"04:00"}


@pytest.mark.parametrize(
    ("now", "eod", "snapshot"),
    [
        (("2026-03-02", "15:59"), ("2026-03-02", "16:00"), ("2026-03-03", "04:00")),
        (("2026-03-02", "16:00"), ("2026-03-03", "16:00"), ("2026-03-03", "04:00")),
        (("2026-03-03", "04:00"), ("2026-03-03", "16:00"), ("2026-03-04", "04:00")),
        (("2026-03-06", "17:00"), ("2026-03-09", "16:00"), ("2026-03-07", "04:00")),
        (("2026-03-07", "12:00"), ("2026-03-09", "16:00"), ("2026-03-10", "04:00")),  # over the change to summer time
    ],
)
def test_the_next_due_time_is_later_than_now(
    now: tuple[str, str], eod: tuple[str, str], snapshot: tuple[str, str]
) -> None:
    assert next_due("eod", NYSE, new_york(*now)) == new_york(*eod)
    assert next_due("snapshot", NYSE, new_york(*now)) == new_york(*snapshot)


def test_due_runs_come_oldest_first_and_none_before_its_time() -> None:
    now = new_york("2026-03-10", "04:10")
    assert [(run.job, run.session.date.day) for run in due_runs(NYSE, now, 2)] == [
        ("eod", 6),
        ("snapshot", 6),
        ("reconstruction", 6),
        ("eod", 9),
        ("snapshot", 9),
    ]


def test_no_due_time_is_ever_skipped() -> None:
    """Sleeping from one due time to the next reaches every job of every session once."""
    for calendar in (NYSE, ALWAYS):
        now, end = new_york("2026-10-20", "12:00"), new_york("2026-12-05", "12:00")
        met: list[tuple[str, date]] = []
        while now < end:
            before, now = now, min(next_due(job, calendar, now) for job in ("eod", "snapshot", "reconstruction"))
            met += [(run.job, run.session.date) for run in due_runs(calendar, now, 5) if run.due > before]
        sessions = [s.date for s in calendar.sessions(date(2026, 10, 20), date(2026, 12, 4))]
        for job in ("eod", "snapshot", "reconstruction"):
            days = [day for name, day in met if name == job]
            assert len(days) == len(set(days))
            assert set(sessions) - {sessions[-1]} <= set(days)


def test_the_last_sessions_end_with_the_given_one() -> None:
    monday = NYSE.session(date(2026, 3, 9))
    assert monday is not None
    assert [session.date.day for session in last_sessions(NYSE, monday, 3)] == [5, 6, 9]
