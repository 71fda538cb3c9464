"""The report of /background/status: the leaders, the last and the next run of each job, and the problems.

Every task can make this report, because all tasks have the same leaders and jobs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from runtime.version import __version__
from service.api import internal_responses, problems
from service.api.recent import Recent
from service.api.store_access import StoreAccess
from service.clock import utc_now
from service.database.connection import StoreError
from service.market.calendar import Calendar
from service.portfolio.records import Fence, JobName, JobRun, Loading
from service.work.background import SCHEDULER_LEASE, TRACKER_LEASE
from service.work.backlog import Backlog, backlog, searched_runs
from service.work.price_watch import PriceWatch
from service.work.timetable import next_due, oldest_session
from sidecar.client import Leadership, LeaseReport, SidecarReport, Unknown

DATABASE_LIMIT = 2.0
"""Seconds to wait for the database's records. A frozen database must not hide who leads."""
SIDECAR_LIMIT = 1.5
"""Seconds to wait for the sidecar's status; longer than the limit of `sidecar.client`."""
NO_ANSWER = "no answer in time"
NO_LEASE = "the sidecar of this task has no such lease; add the lease to LEASES"


@dataclass(frozen=True, slots=True)
class _Records:
    """The database's records. While the database cannot be used they are empty, and `trouble` has the reason."""

    fences: Mapping[str, Fence] = field(default_factory=dict)
    latest_runs: Mapping[JobName, JobRun] = field(default_factory=dict)
    runs: Mapping[tuple[JobName, date], JobRun] = field(default_factory=dict)
    loading: Loading | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class _Sidecar:
    """The sidecar's view of its leases. While the sidecar does not answer it is empty, and `trouble` has the reason."""

    leases: Mapping[str, LeaseReport] = field(default_factory=dict)
    instance_id: str | None = None
    trouble: str | None = None


class BackgroundStatus:
    """Reads the leaderships of this process, the sidecar, the database's records, and the timetable of the daily jobs.

    Args:
        leaderships: the leaderships of this process by lease.
        ask_sidecar: returns the sidecar's view of its leases.
        access: the access to the database.
        calendar: the market's sessions.
        last_tick: returns the time at which this task last received new values.
        next_tick: returns the due time of the next tick.
        interval: seconds between two ticks.
        now: the clock.
        price_watch: returns what the tracker of this process knows about its prices; None before the tracker exists.
    """

    def __init__(
        self,
        leaderships: Mapping[str, Leadership],
        ask_sidecar: Callable[[], Awaitable[SidecarReport]],
        access: StoreAccess,
        calendar: Calendar,
        last_tick: Callable[[], datetime | None],
        next_tick: Callable[[], datetime | None],
        interval: float,
        now: Callable[[], datetime] = utc_now,
        price_watch: Callable[[], PriceWatch | None] = lambda: None,
    ) -> None:
        self._leaderships = leaderships
        self._ask_sidecar = ask_sidecar
        self._access = access
        self._calendar = calendar
        self._last_tick = last_tick
        self._next_tick = next_tick
        self._interval = timedelta(seconds=interval)
        self._now = now
        self._price_watch = price_watch
        self._started = now()
        self._records = Recent(self._read_records, DATABASE_LIMIT)
        self._sidecar = Recent(self._read_sidecar, SIDECAR_LIMIT)

    async def sidecar(self) -> str:
        """`ok`, or what is wrong with the sidecar.

        The leaderships send requests to the sidecar only once the database has been connected, and not during the pause
        after the work has failed. While they have no answer, the sidecar's status decides.
        """
        if any(leadership.state is not None for leadership in self._leaderships.values()):
            return "ok"
        sidecar = await self._sidecar.get()
        return "ok" if sidecar is not None and sidecar.trouble is None else "no answer yet"

    async def report(self) -> internal_responses.BackgroundStatus:
        """The leases as this task sees them, and the jobs. The last runs are null during a database outage."""
        records, sidecar = await asyncio.gather(self._records.get(), self._sidecar.get())
        records = records or _Records(trouble=self._access.trouble or NO_ANSWER)
        sidecar = sidecar or _Sidecar(trouble=NO_ANSWER)
        now, trouble = self._now(), records.trouble or self._access.trouble
        instance_ids = (leadership.instance_id for leadership in self._leaderships.values())
        leases = internal_responses.Leases(
            background_services=self._lease(TRACKER_LEASE, records, sidecar),
            daily_scheduler=self._lease(SCHEDULER_LEASE, records, sidecar),
        )
        jobs = internal_responses.Jobs(
            tracker=internal_responses.Tracker(
                market_open=self._calendar.current(now) is not None,
                last_run=self._last_tick(),
                next_run=self._next_tick(),
                loading=internal_responses.Loading.of(records.loading) if records.loading else None,
            ),
            eod=self._job("eod", records, now),
            snapshot=self._job("snapshot", records, now),
            reconstruction=self._job("reconstruction", records, now),
        )
        return internal_responses.BackgroundStatus(
            now=now,
            version=__version__,
            instance_id=next(filter(None, instance_ids), sidecar.instance_id),
            problems=[
                *problems.sidecar_problems(sidecar.trouble),
                *problems.lease_problems(
                    {TRACKER_LEASE: leases.background_services, SCHEDULER_LEASE: leases.daily_scheduler}
                ),
                *problems.database_problems(trouble),
                *problems.clock_problems(self._access.clock_difference),
                *problems.tick_problems(self._silent_since(now), self._interval, now),
                *self._price_problems(now),
                *(problems.job_problems(self._backlog(records, now), now) if records.trouble is None else ()),
            ],
            leases=leases,
            jobs=jobs,
            database=trouble or "ok",
            sidecar=sidecar.trouble or "ok",
        )

    async def close(self) -> None:
        """End the reads that still run."""
        await self._records.close()
        await self._sidecar.close()

    def _lease(self, name: str, records: _Records, sidecar: _Sidecar) -> internal_responses.Lease:
        leadership, fence, seen = self._leaderships[name], records.fences.get(name), sidecar.leases.get(name)
        state = leadership.state or (seen.state if seen else None)
        missing = NO_LEASE if sidecar.trouble is None else None
        return internal_responses.Lease(
            is_leader=leadership.is_leader,
            state=state or "unknown",
            holder=leadership.holder if leadership.state is not None or seen is None else seen.holder,
            token=leadership.token,
            remaining=round(leadership.remaining(), 3),
            lease_remaining=_lease_remaining(seen, self._sidecar.age),
            trouble=(seen.trouble or seen.step_down) if seen else missing,
            last_writer=internal_responses.LastWriter.of(fence) if fence else None,
        )

    def _job(self, name: JobName, records: _Records, now: datetime) -> internal_responses.Job:
        run = records.latest_runs.get(name)
        return internal_responses.Job(
            last_run=internal_responses.JobRun.of(run) if run else None,
            next_run=next_due(name, self._calendar, now),
        )

    def _silent_since(self, now: datetime) -> datetime | None:
        """The beginning of the time without ticks, for `problems.tick_problems`; None while the market is closed."""
        session = self._calendar.current(now)
        return max(self._last_tick() or self._started, session.open) if session is not None else None

    def _price_problems(self, now: datetime) -> Iterator[internal_responses.Problem]:
        watch = self._price_watch()
        if watch is None or not self._leaderships[TRACKER_LEASE].is_leader:  # only the leader asks for prices
            return iter(())
        session = self._calendar.current(now)
        unpriced = watch.unpriced(now, session.open) if session is not None else None
        return problems.price_problems(watch.failure(now), unpriced)

    def _backlog(self, records: _Records, now: datetime) -> Backlog:
        return backlog(searched_runs(self._calendar, now), records.runs, self._calendar, now)

    async def _read_records(self) -> _Records:
        try:
            store = self._access.store
            runs = await store.runs(oldest_session(searched_runs(self._calendar, self._now())).date)
            return _Records(await store.fences(), await store.job_runs(), runs, await store.loading(TRACKER_LEASE))
        except StoreError as error:
            return _Records(trouble=str(error).removeprefix("database: "))

    async def _read_sidecar(self) -> _Sidecar:
        try:
            report = await self._ask_sidecar()
        except Unknown as unknown:
            return _Sidecar(trouble=str(unknown))
        return _Sidecar(report.leases, report.instance_id)


def _lease_remaining(seen: LeaseReport | None, age: float) -> float | None:
    """Remaining seconds of the holder's lease, from a report that is `age` seconds old; None if they are unknown."""
    remaining = None if seen is None else seen.remaining or seen.holder_remaining
    return None if remaining is None else round(max(remaining - age, 0.0), 3)
