"""The due runs that are not done, and the unsettled sessions: pure functions of the timetable and of the runs' records.

The scheduler works on the backlog, and `/background/status` reports it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from service.market.calendar import Calendar
from service.portfolio.records import JobName, JobRun
from service.work.timetable import DueRun, due_runs, last_sessions

LOOK_BACK = 7
"""Number of past sessions whose missed runs are caught up."""

GAP_SEARCH_SESSIONS = 60
"""Number of past sessions to scan for gaps too old to catch up: a quarter of a year."""

DUE_TOLERANCE = timedelta(minutes=1)
"""Tolerance between the database's clock, which dates a run's progress, and the clock by which the run was due."""


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A due run that is not done, and its record; None if no attempt has begun."""

    due: DueRun
    record: JobRun | None

    @property
    def is_early(self) -> bool:
        """Whether the record's progress was made before the run was due.

        A run by hand may be that early. Its closes were not official yet, so the run must begin again.
        """
        return self.record is not None and _is_early(self.record, self.due)


@dataclass(frozen=True, slots=True)
class Backlog:
    """The work that is left."""

    waiting: list[WaitingRun]
    """The due runs of the look-back that are not done, oldest first."""
    unsettled: list[date]
    """The unsettled sessions older than the look-back, oldest first, except those before the first settled session."""


def searched_runs(calendar: Calendar, now: datetime, look_back: int = LOOK_BACK) -> list[DueRun]:
    """The due runs to compare with their records, done or not, oldest first."""
    return due_runs(calendar, now, max(look_back, GAP_SEARCH_SESSIONS))


def backlog(
    due: Iterable[DueRun],
    records: Mapping[tuple[JobName, date], JobRun],
    calendar: Calendar,
    now: datetime,
    look_back: int = LOOK_BACK,
) -> Backlog:
    """The runs of `due` that are not done according to their records, and the unsettled sessions."""
    earliest = last_sessions(calendar, calendar.last_closed(now), look_back)[0].date
    waiting, left, settled = list[WaitingRun](), list[date](), list[date]()
    for run in due:
        record = records.get((run.job, run.session.date))
        if record is not None and record.status == "done" and not _is_early(record, run):
            if run.job == "snapshot":
                settled.append(run.session.date)
        elif run.session.date >= earliest:
            waiting.append(WaitingRun(run, record))
        elif run.job == "snapshot":
            left.append(run.session.date)
    first = min(settled, default=date.max)
    return Backlog(waiting, [day for day in left if day > first])


def _is_early(record: JobRun, run: DueRun) -> bool:
    return (record.finished_at or record.updated_at) < run.due - DUE_TOLERANCE
