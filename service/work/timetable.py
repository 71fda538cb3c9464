"""The times at which jobs are due: pure functions of the calendar and the time, the same for leaders and followers."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from service.market.calendar import NEW_YORK, Calendar, Session
from service.portfolio.records import JobName

JOBS: tuple[JobName, ...] = ("eod", "snapshot", "reconstruction")

SNAPSHOT_TIME = time(4, 0)
RECONSTRUCTION_TIME = time(4, 30)
"""Times in New York. Both exist exactly once on every day, unlike times that a clock change skips or repeats."""


@dataclass(frozen=True, slots=True)
class DueRun:
    """A job that is due for a session from `due` on."""

    due: datetime
    job: JobName
    session: Session


def due_at(job: JobName, session: Session) -> datetime:
    """When a job is due for a session: at its close, or early on the following morning in New York."""
    match job:
        case "eod":
            return session.close
        case "snapshot":
            return _next_morning(session.close, SNAPSHOT_TIME)
        case "reconstruction":
            return _next_morning(session.close, RECONSTRUCTION_TIME)


def next_due(job: JobName, calendar: Calendar, now: datetime) -> datetime:
    """The first time later than `now` at which the job is due for a session."""
    session = calendar.last_closed(now)
    while (due := due_at(job, session)) <= now:
        session = calendar.next_open(session.open)
    return due


def due_runs(calendar: Calendar, now: datetime, look_back: int) -> list[DueRun]:
    """The runs that are due by `now` for the last `look_back` closed sessions, done or not, oldest first."""
    sessions = last_sessions(calendar, calendar.last_closed(now), look_back)
    runs = (DueRun(due_at(job, session), job, session) for session in sessions for job in JOBS)
    return sorted((run for run in runs if run.due <= now), key=lambda run: (run.due, JOBS.index(run.job)))


def last_sessions(calendar: Calendar, last: Session, count: int) -> list[Session]:
    """The session and those before it, `count` in all, oldest first."""
    sessions = [last]
    while len(sessions) < count:
        sessions.append(calendar.last_closed(sessions[-1].open))
    return sessions[::-1]


def oldest_session(runs: Iterable[DueRun]) -> Session:
    """The earliest session of the runs."""
    return min((run.session for run in runs), key=lambda session: session.date)


def _next_morning(close: datetime, at: time) -> datetime:
    day = close.astimezone(NEW_YORK).date()
    morning = datetime.combine(day, at, NEW_YORK).astimezone(UTC)
    if morning <= close:
        morning = datetime.combine(day + timedelta(days=1), at, NEW_YORK).astimezone(UTC)
    return morning
