"""The daily scheduler: runs each job when it is due. If several runs are due, the one that was due first runs first."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Never

from service.clock import CLOCK_TOLERANCE, EarlierClock, utc_now
from service.database.connection import StoreError
from service.database.store import Store
from service.market.calendar import Calendar
from service.outage import Outage
from service.portfolio.records import JobName
from service.prices import PriceSource, PricesUnavailable
from service.work.backlog import LOOK_BACK, Backlog, WaitingRun, backlog, searched_runs
from service.work.jobs import Jobs
from service.work.metrics import WorkMetrics
from service.work.protection import NoProtection, Protection
from service.work.term import LONGEST_SLEEP, Sleep, Term, claim_fence
from service.work.timetable import JOBS, DueRun, next_due, oldest_session

logger = logging.getLogger(__name__)

DATABASE_RETRY = timedelta(seconds=10)
"""Time from a failure of the database to the next attempt, unless `retry_after` is shorter."""


class Scheduler:
    """Runs the daily jobs of the last `look_back` sessions under one lease.

    A failed run does not stop the others. The run is tried again every `retry_after` seconds (sooner after a failure of
    the database) until it is done or out of the look-back. A session is unsettled until its snapshot is done. A session
    that leaves the look-back unsettled is reported until a snapshot by hand settles it. The scheduler looks for that
    snapshot every `retry_after` seconds.

    The task is protected from a scale-in while it works on due runs.

    A run is due when both this machine's clock and the database's have passed its time.
    """

    def __init__(
        self,
        store: Store,
        prices: PriceSource,
        calendar: Calendar,
        metrics: WorkMetrics,
        *,
        look_back: int = LOOK_BACK,
        chunk: int = 20_000,
        retry_after: float = 60.0,
        protection: Protection | None = None,
        now: Callable[[], datetime] = utc_now,
        database_clock: Callable[[], Awaitable[datetime]] | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._store = store
        self._clock = EarlierClock(now, database_clock or store.clock)
        self._now = self._clock.now
        self._jobs = Jobs(store, prices, calendar, look_back=look_back, chunk=chunk, now=self._now)
        self._calendar = calendar
        self._metrics = metrics
        self._look_back = look_back
        self._retry_after = timedelta(seconds=retry_after)
        self._protection = protection or NoProtection()
        self._sleep = sleep
        self._given_up: set[date] = set()
        """Sessions that were reported as unsettled."""
        self._outage = Outage(logger, "the database fails, the runs wait: %s", "the runs continue")
        self._retry_soon = False
        """Whether the database failed during the last pass."""
        self._done = set[DueRun]()
        """The due runs that were done at the last pass; before the first pass all due runs, since nobody knows more."""

    def next_runs(self) -> dict[JobName, datetime]:
        """Next due time of each job, on leaders and followers. `Store.job_runs` has the last runs."""
        now = self._now()
        return {job: next_due(job, self._calendar, now) for job in JOBS}

    async def run(self, term: Term) -> Never:
        """Run due jobs until the term is over. Try again after a failure of the price source or the database.

        Raises:
            StaleTerm: a newer term has claimed the fence.
            TermOver: the term is over.
        """
        await claim_fence(self._store, term, self._sleep)
        self._done = set(self._due(self._now()))
        try:
            while True:
                seen = self._due(self._now())
                everything_done = await self._run_due(term)
                await self._sleep_until_next_pass(seen, everything_done=everything_done)
        finally:  # from now on the next leader sets these metrics
            self._metrics.runs_waiting.set(0)
            self._metrics.given_up.set(0)

    async def _run_due(self, term: Term) -> bool:
        """Run the due runs; returns whether all of them are done and no older session is unsettled.

        If a due run is not in `_done` when this pass begins, and the pass cannot read the records, the run's write
        counts as due from the beginning of the pass.
        """
        term.check()
        self._retry_soon = False
        began = time.monotonic()
        is_due = not self._done.issuperset(self._due(self._now()))
        try:
            await self._clock.compare()
            left = await self._backlog()
        except StoreError as error:
            self._outage.failed(error, _fields(term, "runs_delayed"))
            self._database_failed(term, waited=time.monotonic() - began if is_due else 0.0)
            return False
        self._done = set(self._due(self._now())).difference(run.due for run in left.waiting)
        if not left.waiting:
            self._outage.recovered(_fields(term, "runs_resumed"))
            self._store.writes.of(term.name).cleared()
        self._report_given_up(left.unsettled)
        failed = 0
        with self._protection.held():
            for index, run in enumerate(left.waiting):
                self._metrics.runs_waiting.set(failed + len(left.waiting) - index)
                failed += not await self._attempt(run, term)
        self._metrics.runs_waiting.set(failed)
        return failed == 0 and not self._given_up

    async def _backlog(self) -> Backlog:
        now = self._now()
        due = self._due(now)
        records = await self._store.runs(oldest_session(due).date) if due else {}
        return backlog(due, records, self._calendar, now, self._look_back)

    def _due(self, now: datetime) -> list[DueRun]:
        """The runs that are due by `now`, done or not, oldest first."""
        return searched_runs(self._calendar, now, self._look_back)

    def _report_given_up(self, unsettled: Iterable[date]) -> None:
        """Report the unsettled sessions older than the look-back."""
        given_up = set(unsettled)
        self._metrics.given_up.set(len(given_up))
        if new := sorted(given_up - self._given_up):
            days = ", ".join(map(str, new))
            text = "sessions left unsettled and too old to catch up, run the snapshot by hand: %s"
            logger.error(text, days, extra={"event": "sessions_unsettled"})
        self._given_up = given_up

    async def _attempt(self, waiting: WaitingRun, term: Term) -> bool:
        """Run one job; returns whether it is done."""
        run, started = waiting.due, time.perf_counter()
        try:
            rows = await self._jobs.run(run.job, run.session, term, rerun=waiting.is_early)
        except (PricesUnavailable, StoreError) as error:
            self._metrics.runs.labels(run.job, "failed").inc()
            if isinstance(error, StoreError):
                self._outage.failed(error, _fields(term, "runs_delayed"))
                self._database_failed(term)
            await self._record_failure(run, term, str(error))
            return False
        self._outage.recovered(_fields(term, "runs_resumed"))
        self._done.add(run)
        if rows is not None:
            self._metrics.runs.labels(run.job, "done").inc()
            self._metrics.run_seconds.labels(run.job).observe(time.perf_counter() - started)
        return True

    def _database_failed(self, term: Term, waited: float = 0.0) -> None:
        self._retry_soon = True
        self._store.writes.of(term.name).failed(waited)

    async def _record_failure(self, run: DueRun, term: Term, reason: str) -> None:
        term.check()
        try:
            async with self._store.fenced(term) as writes:
                await writes.fail(run.job, run.session.date, reason)
        except StoreError as error:
            self._outage.failed(error, _fields(term, "runs_delayed"))
            self._database_failed(term)

    async def _sleep_until_next_pass(self, seen: Iterable[DueRun], *, everything_done: bool) -> None:
        """Sleep until a run is due that is not in `seen`, or until the next retry unless everything is done.

        Runs that became due meanwhile start at once. After each sleep the timetable is read again, because the calendar
        may have changed. Such a change may move a due time to before the last pass. After each sleep but the last, the
        clocks are compared again, because this machine's clock may have been set. The records of done runs are read
        again, because a restored database may lack some of them.
        """
        retry_after = min(self._retry_after, DATABASE_RETRY) if self._retry_soon else self._retry_after
        retry_at = None if everything_done else self._now() + retry_after
        while True:
            now = self._now()
            present = self._due(now)
            if not set(present) <= set(seen):
                return
            seen = present  # after the clock was set back, a run may no longer be due, and become due again later
            due = min(next_due(job, self._calendar, now) for job in JOBS)
            if retry_at is not None:
                retry_at = min(retry_at, now + retry_after)
                due = min(due, retry_at)
            left = (due - now).total_seconds()
            if left <= 0:
                return
            await self._sleep(min(left, LONGEST_SLEEP))
            if self._now() > due - CLOCK_TOLERANCE:
                continue  # the next pass compares the clocks; a comparison that hangs here would delay it
            with suppress(StoreError):  # the next pass reports a failure of the database
                await self._clock.compare()
                if everything_done and await self._backlog() != Backlog([], []):
                    return


def _fields(term: Term, event: str) -> dict[str, object]:
    return {"lease": term.name, "token": term.token, "event": event}
