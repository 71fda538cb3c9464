"""The report of /background/status: who leads, and when each job ran and will run. Every task can answer it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from service.api import internal_responses
from service.api.store_access import StoreAccess
from service.clock import utc_now
from service.database.connection import StoreError
from service.market.calendar import Calendar
from service.portfolio.records import Fence, JobName, JobRun, Loading
from service.work.background import SCHEDULER_LEASE, TRACKER_LEASE
from service.work.timetable import next_due
from sidecar.client import Leadership

MAX_AGE = 1.0
"""Maximum age of the database's records in a report, in seconds. It bounds the number of queries for any number of
clients."""


@dataclass(frozen=True, slots=True)
class _Records:
    """The database's records. While the database cannot be used they are empty, and `trouble` says why."""

    fences: Mapping[str, Fence] = field(default_factory=dict)
    runs: Mapping[JobName, JobRun] = field(default_factory=dict)
    loading: Loading | None = None
    trouble: str | None = None


class BackgroundStatus:
    """Reads the leaderships of this process, the database's records, and the timetable that all tasks share."""

    def __init__(
        self,
        leaderships: Mapping[str, Leadership],
        access: StoreAccess,
        calendar: Calendar,
        last_tick: Callable[[], datetime | None],
        next_tick: Callable[[], datetime | None],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._leaderships = leaderships
        self._access = access
        self._calendar = calendar
        self._last_tick = last_tick
        self._next_tick = next_tick
        self._now = now
        self._reading = asyncio.Lock()
        self._records = _Records()
        self._read_at: float | None = None

    @property
    def sidecar(self) -> str:
        """`ok`, or what is wrong with the sidecar."""
        known = any(leadership.state is not None for leadership in self._leaderships.values())
        return "ok" if known else "no answer yet"

    async def report(self) -> internal_responses.BackgroundStatus:
        """The leases as this process sees them, and the jobs. The last runs are null during a database outage."""
        records = await self._recent_records()
        instance_ids = (leadership.instance_id for leadership in self._leaderships.values())
        return internal_responses.BackgroundStatus(
            instance_id=next(filter(None, instance_ids), None),
            leases=internal_responses.Leases(
                background_services=self._lease(TRACKER_LEASE, records),
                daily_scheduler=self._lease(SCHEDULER_LEASE, records),
            ),
            jobs=internal_responses.Jobs(
                tracker=internal_responses.Tracker(
                    last_run=self._last_tick(),
                    next_run=self._next_tick(),
                    loading=internal_responses.Loading.of(records.loading) if records.loading else None,
                ),
                eod=self._job("eod", records),
                snapshot=self._job("snapshot", records),
                reconstruction=self._job("reconstruction", records),
            ),
            database=records.trouble or self._access.trouble or "ok",
        )

    def _lease(self, name: str, records: _Records) -> internal_responses.Lease:
        leadership, fence = self._leaderships[name], records.fences.get(name)
        return internal_responses.Lease(
            is_leader=leadership.is_leader,
            state=leadership.state or "unknown",
            holder=leadership.holder,
            token=leadership.token,
            remaining=round(leadership.remaining(), 3),
            last_writer=internal_responses.LastWriter.of(fence) if fence else None,
        )

    def _job(self, name: JobName, records: _Records) -> internal_responses.Job:
        run = records.runs.get(name)
        return internal_responses.Job(
            last_run=internal_responses.JobRun.of(run) if run else None,
            next_run=next_due(name, self._calendar, self._now()),
        )

    async def _recent_records(self) -> _Records:
        """The records, at most `MAX_AGE` old. Requests that arrive together share one query."""
        async with self._reading:
            if self._read_at is None or time.monotonic() - self._read_at >= MAX_AGE:
                self._records = await self._read()
                self._read_at = time.monotonic()
            return self._records

    async def _read(self) -> _Records:
        try:
            store = self._access.store
            return _Records(await store.fences(), await store.job_runs(), await store.loading(TRACKER_LEASE))
        except StoreError as error:
            return _Records(trouble=str(error).removeprefix("database: "))
