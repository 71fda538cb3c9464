"""The problems that this task can see, in words for people."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from runtime.escape import one_line
from service.api.internal_responses import MAX_ERROR_LENGTH, Lease, Problem
from service.portfolio.records import JobName
from service.work.backlog import Backlog
from service.work.price_watch import FAILURES
from service.work.timetable import DueRun

RUN_GRACE = timedelta(minutes=15)
"""Time within which a due job must start, and within which a run must make progress."""
MISSED_TICKS = 3
"""Number of tick intervals without a tick after which a problem is reported."""
MOST_RUNS = 10
"""Maximum number of runs that fail or stand still and are reported one by one. The others are counted."""
MOST_SESSIONS = 10
"""Maximum number of unsettled sessions that one text names."""
TICK_GRACE = timedelta(seconds=15)
"""Minimum time without a tick before a problem is reported; it applies when the interval is short."""


def lease_problems(leases: Mapping[str, Lease]) -> Iterator[Problem]:
    """The problems of the leases. Leases with the same problem share one text."""
    names: dict[Problem, list[str]] = {}
    for name, lease in leases.items():
        for problem in _of_lease(lease):
            names.setdefault(problem, []).append(name)
    for problem, which in names.items():
        yield Problem(severity=problem.severity, text=f"{' and '.join(which)}: {problem.text}")


def _of_lease(lease: Lease) -> Iterator[Problem]:
    because = f" ({lease.trouble})" if lease.trouble else ""
    match lease.state:
        case "disconnected":
            yield _error(f"the sidecar of this task cannot use Redis{because}. This task cannot lead.")
        case "disabled":
            yield _warning(f"disabled{because}. No task leads until the lease is enabled or its disabled time ends.")
        case "guarded":
            yield _warning(f"the Redis server has changed{because}. The next term starts after one ttl.")
        case "draining":
            yield _warning(f"this task is stopping and releases the lease{because}.")
        case "waiting":
            yield _warning(f"this task does not campaign for the lease{because}. Its work is starting or paused.")
        case "unknown":  # without `trouble` the sidecar gave no answer; `sidecar_problems` reports this
            if lease.trouble:
                yield _error(f"{lease.trouble}. This task cannot lead.")
        case _ if lease.holder is None:
            yield _error(f"no task leads{because}.")
        case _ if lease.trouble:
            yield _warning(lease.trouble)


def sidecar_problems(trouble: str | None) -> Iterator[Problem]:
    """The problem of this task's sidecar, if there is one."""
    if trouble is not None:
        yield _error(
            f"The sidecar of this task does not answer ({trouble}). This task cannot lead, and cannot see who leads."
        )


def database_problems(trouble: str | None) -> Iterator[Problem]:
    """The problem of the database, if there is one."""
    if trouble is not None:
        yield _error(f"The database cannot be used ({trouble}). This task can write no values and run no jobs.")


def clock_problems(difference: timedelta | None) -> Iterator[Problem]:
    """The problem of a clock that is ahead of the database's by `difference`, if there is one."""
    if difference is not None:
        side = "ahead of" if difference > timedelta() else "behind"
        yield _warning(
            f"The clock of this task is {in_words(abs(difference))} {side} the database's. "
            "Values may look stale, and jobs may run late."
        )


def tick_problems(silent_since: datetime | None, interval: timedelta, now: datetime) -> Iterator[Problem]:
    """The problem of the live values, if there is one.

    Args:
        silent_since: time of the last tick, of this task's start if it has seen no tick, or of the opening if that is
            later; None while the market is closed.
        interval: the time between two ticks.
        now: the time.
    """
    if silent_since is not None and now - silent_since > max(MISSED_TICKS * interval, TICK_GRACE):
        silence = in_words(now - silent_since)
        yield _error(f"The market is open, but this task has received no new values for {silence}.")


def price_problems(failure: str | None, unpriced: tuple[int, int] | None) -> Iterator[Problem]:
    """The problems of the prices, from the results of `PriceWatch.failure` and `PriceWatch.unpriced`."""
    if failure is not None:
        reason = one_line(failure, MAX_ERROR_LENGTH)
        yield _warning(f"The price source failed at least {FAILURES} times in the last ten minutes ({reason}).")
    if unpriced is not None:
        count, held = unpriced
        yield _warning(f"Held symbols that have never had a price: {count} of {held}. The values leave them out.")


def job_problems(left: Backlog, now: datetime) -> Iterator[Problem]:
    """The problems of the daily jobs: due runs that fail, stand still or have not started, and unsettled sessions."""
    failing, still, missing = list[str](), list[str](), dict[JobName, list[DueRun]]()
    for run in left.waiting:
        which, record = f"The job {run.due.job} of {run.due.session.date}", run.record
        if record is not None and record.error is not None:
            failing.append(f"{which} fails and is tried again: {one_line(record.error, MAX_ERROR_LENGTH)}")
        elif record is None or run.is_early:
            if now - run.due.due > RUN_GRACE:
                missing.setdefault(run.due.job, []).append(run.due)
        elif now - record.updated_at > RUN_GRACE:
            still.append(f"{which} has made no progress for {in_words(now - record.updated_at)}.")
    texts = [*failing, *still]
    yield from map(_error, texts[:MOST_RUNS])
    if len(texts) > MOST_RUNS:
        yield _error(f"{len(texts) - MOST_RUNS} other runs of the daily jobs also fail or stand still.")
    for job, (first, *later) in missing.items():
        more = f" Later runs of this job that have not started: {len(later)}." if later else ""
        late = in_words(now - first.due)
        yield _error(f"The job {job} of {first.session.date} was due {late} ago and has not started.{more}")
    if left.unsettled:
        days = ", ".join(map(str, left.unsettled[:MOST_SESSIONS]))
        rest = len(left.unsettled) - MOST_SESSIONS
        yield _error(
            f"Sessions are unsettled and too old to catch up: {days}{f' and {rest} later ones' if rest > 0 else ''}. "
            "Run the snapshot by hand for each."
        )


def in_words(time: timedelta) -> str:
    """A duration with its one or two largest units: `45 s`, `3 min`, `2 h 5 min`, `4 d 3 h`."""
    seconds = int(time.total_seconds())
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds} s"


def _error(text: str) -> Problem:
    return Problem(severity="error", text=text)


def _warning(text: str) -> Problem:
    return Problem(severity="warning", text=text)
