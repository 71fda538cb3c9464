"""The daily scheduler: runs each job when it is due, and what was missed, oldest first."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import date, datetime, timedelta
from typing import Never

from service.clock import LesserClock, utc_now
from service.database.connection import StoreError
from service.database.store import Store
from service.market.calendar import Calendar
from service.outage import Outage
from service.portfolio.records import JobName
from service.prices import PriceSource, PricesUnavailable
from service.work.jobs import Jobs
from service.work.metrics import WorkMetrics
from service.work.protection import NoProtection, Protection
from service.work.term import LONGEST_SLEEP, Sleep, Term, take_up
from service.work.timetable import JOBS, DueRun, due_runs, last_sessions, next_due, oldest

logger = logging.getLogger(__name__)

DATABASE_RETRY = timedelta(seconds=10)
"""Time from an attempt that the database failed to the next, if `retry_after` is not shorter."""

CLOCKS_DIFFER = timedelta(minutes=1)
"""By how much the database's clock, by which a run was done, may lag behind the one by which it was due."""

REMEMBERED = 60
"""Sessions in which a gap that no run will fill any more is looked for: a quarter of a year."""


class Scheduler:
    """Runs the daily jobs of the last `look_back` sessions under one lease.

    A run that fails holds up no other one, and is tried again after `retry_after` seconds until it is done or out
    of the look-back. A session that leaves the look-back unsettled is told, until a snapshot by hand settles it. While
    there is something to run, the task is protected from a scale-in.

    A run is due once both this machine's clock and the database's have passed its time.
    """

    def __init__(
        self,
        store: Store,
        prices: PriceSource,
        calendar: Calendar,
        metrics: WorkMetrics,
        *,
        look_back: int = 7,
        chunk: int = 20_000,
        retry_after: float = 60.0,
        protection: Protection | None = None,
        now: Callable[[], datetime] = utc_now,
        database_clock: Callable[[], Awaitable[datetime]] | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._store = store
        self._clock = LesserClock(now, database_clock or store.clock)
        self._now = self._clock.now
        self._jobs = Jobs(store, prices, calendar, look_back=look_back, chunk=chunk, now=self._now)
        self._calendar = calendar
        self._metrics = metrics
        self._look_back = look_back
        self._retry_after = timedelta(seconds=retry_after)
        self._protection = protection or NoProtection()
        self._sleep = sleep
        self._given_up: set[date] = set()
        """The sessions that were told as left unsettled."""
        self._outage = Outage(logger, "the database fails, and the runs are tried again: %s", "runs go on")
        self._run_outages: dict[tuple[JobName, date], Outage] = {}
        self._retry_soon = False
        """Whether the database failed during the last look."""

    def next_runs(self) -> dict[JobName, datetime]:
        """By job, when it is next due, whoever leads; what was run last is in `Store.job_runs`."""
        now = self._now()
        return {job: next_due(job, self._calendar, now) for job in JOBS}

    async def run(self, term: Term) -> Never:
        """Run what is due until the term is over. A price source or a database that fails costs time, not the term.

        Raises:
            StaleTerm: a newer term has taken the lease up in the database.
            TermOver: the term said so.
        """
        await take_up(self._store, term, self._sleep)
        try:
            while True:
                began = self._now()
                everything_done = await self._work_off(term)
                await self._sleep_until_next_look(began, everything_done=everything_done)
        finally:  # from now on the next leader knows, and does it
            self._metrics.runs_waiting.set(0)
            self._metrics.given_up.set(0)

    async def _work_off(self, term: Term) -> bool:
        """Run what is due; returns whether all of it is done."""
        term.check()
        self._retry_soon = False
        try:
            await self._clock.compare()
            now = self._now()
            due = due_runs(self._calendar, now, max(self._look_back, REMEMBERED))
            done = await self._store.finished_runs(oldest(due).date) if due else {}
        except StoreError as error:
            self._outage.met(error, {"lease": term.name})
            self._database_failed(term)
            return False
        earliest = last_sessions(self._calendar, self._calendar.last_closed(now), self._look_back)[0].date
        # One that was done by hand before it was due had no official closes yet, and is done again.
        undone = [
            run for run in due if not (at := done.get((run.job, run.session.date))) or at < run.due - CLOCKS_DIFFER
        ]
        if not undone:
            self._outage.over({"lease": term.name})
            self._store.writes.of(term.name).cleared()
        waiting = [run for run in undone if run.session.date >= earliest]
        left = {run.session.date for run in undone if run.session.date < earliest and run.job == "snapshot"}
        settled = (run.session.date for run in due if run.job == "snapshot" and run not in undone)
        self._tell_given_up(left, settled)
        failed = 0
        with self._protection.held():
            for place, run in enumerate(waiting):
                self._metrics.runs_waiting.set(failed + len(waiting) - place)
                failed += not await self._attempt(run, term, anew=(run.job, run.session.date) in done)
        self._metrics.runs_waiting.set(failed)
        return failed == 0

    def _tell_given_up(self, left: set[date], settled: Iterable[date]) -> None:
        """Tell of the sessions left unsettled behind the look-back, but for those before the first that was settled."""
        first = min(settled, default=date.max)
        given_up = {day for day in left if day > first}
        self._metrics.given_up.set(len(given_up))
        if new := sorted(given_up - self._given_up):
            days = ", ".join(map(str, new))
            logger.error("unsettled and too long ago to be caught up, run the snapshot by hand: %s", days)
        self._given_up = given_up

    async def _attempt(self, run: DueRun, term: Term, *, anew: bool) -> bool:
        """Run one; returns whether it is done."""
        about = {"lease": term.name, "token": term.token, "job": run.job, "session": run.session.date.isoformat()}
        started = time.perf_counter()
        try:
            rows = await self._jobs.run(run.job, run.session, term, anew=anew)
        except (PricesUnavailable, StoreError) as error:
            self._metrics.runs.labels(run.job, "failed").inc()
            if isinstance(error, StoreError):
                self._outage.met(error, about)
                self._database_failed(term)
            else:
                self._outage_of(run).met(error, about)
            await self._record_failure(run, term, str(error))
            return False
        self._outage.over(about)
        self._run_outages.pop((run.job, run.session.date), None)  # its end is the line below
        if rows is not None:
            self._metrics.runs.labels(run.job, "done").inc()
            self._metrics.run_seconds.labels(run.job).observe(time.perf_counter() - started)
            logger.info("%s of %s is done, %d rows written", run.job, run.session.date, rows, extra=about)
        return True

    def _outage_of(self, run: DueRun) -> Outage:
        began = f"{run.job} of {run.session.date} failed, and it is tried again: %s"
        return self._run_outages.setdefault((run.job, run.session.date), Outage(logger, began, "it is done"))

    def _database_failed(self, term: Term) -> None:
        self._retry_soon = True
        self._store.writes.of(term.name).failed()

    async def _record_failure(self, run: DueRun, term: Term, reason: str) -> None:
        term.check()
        try:
            async with self._store.fenced(term.name, term.token, term.holder) as writes:
                await writes.fail(run.job, run.session.date, reason)
        except StoreError as error:
            self._outage.met(error)
            self._database_failed(term)

    async def _sleep_until_next_look(self, began: datetime, *, everything_done: bool) -> None:
        """Until the next due time after the look that began then: what fell due while it worked is seen at once.

        The timetable is read again at each waking: the calendar may have been overridden.
        """
        retry_after = min(self._retry_after, DATABASE_RETRY) if self._retry_soon else self._retry_after
        retry_at = None if everything_done else self._now() + retry_after
        while True:
            now = self._now()
            began = min(began, now)  # a clock set back must not make the wait longer
            due = min(next_due(job, self._calendar, began) for job in JOBS)
            if retry_at is not None:
                retry_at = min(retry_at, now + retry_after)
                due = min(due, retry_at)
            left = (due - now).total_seconds()
            if left <= 0:
                return
            await self._sleep(min(left, LONGEST_SLEEP))
