"""What /background/status tells: who leads, and when each job ran and will run. Any task can say it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runtime.escape import one_line
from service.api import responses as answers
from service.api.store_access import StoreAccess
from service.clock import utc_now
from service.database.connection import StoreError
from service.market.calendar import Calendar
from service.portfolio.records import Fence, JobName, JobRun, Loading
from service.work.background import SCHEDULER_LEASE, TRACKER_LEASE
from service.work.timetable import JOBS, next_due
from sidecar.client import Leadership

FRESH = 1.0
"""Seconds for which what the database said is told again: everybody may ask, as often as they like."""


@dataclass(frozen=True, slots=True)
class _Records:
    """What the database says; nothing, and why, while it is away."""

    fences: Mapping[str, Fence] = field(default_factory=dict)
    runs: Mapping[JobName, JobRun] = field(default_factory=dict)
    loading: Loading | None = None
    trouble: str | None = None


class BackgroundStatus:
    """Reads the leaderships of this process, the database's records, and the timetable, which all tasks share."""

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
        """`ok`, or what is wrong with it."""
        known = any(leadership.state is not None for leadership in self._leaderships.values())
        return "ok" if known else "no answer yet"

    async def report(self) -> dict[str, Any]:
        """The leases as this process sees them; the jobs, whose last runs are null while the database is away."""
        records = await self._recent_records()
        leases = {}
        for name, leadership in self._leaderships.items():
            fence = records.fences.get(name)
            leases[name] = {
                "is_leader": leadership.is_leader,
                "state": _shown(leadership.state) or "unknown",
                "holder": _shown(leadership.holder),
                "token": leadership.token,
                "remaining": round(leadership.remaining(), 3),
                "last_writer": fence and _last_writer(fence),
            }
        jobs: dict[str, Any] = {
            "tracker": {
                "lease": TRACKER_LEASE,
                "last_run": self._last_tick(),
                "next_run": self._next_tick(),
                "loading": records.loading and answers.loading(records.loading),
            },
        }
        for job in JOBS:
            run = records.runs.get(job)
            due = next_due(job, self._calendar, self._now())
            jobs[job] = {"lease": SCHEDULER_LEASE, "last_run": run and answers.job_run(run), "next_run": due}
        instance_ids = (leadership.instance_id for leadership in self._leaderships.values())
        return {
            "instance_id": _shown(next(filter(None, instance_ids), None)),
            "leases": leases,
            "jobs": jobs,
            "database": records.trouble or self._access.trouble or "ok",
        }

    async def _recent_records(self) -> _Records:
        """The records as they were a second ago at most, read once for all who ask at a time."""
        async with self._reading:
            if self._read_at is None or time.monotonic() - self._read_at >= FRESH:
                self._records = await self._read()
                self._read_at = time.monotonic()
            return self._records

    async def _read(self) -> _Records:
        try:
            store = self._access.store
            return _Records(await store.fences(), await store.job_runs(), await store.loading(TRACKER_LEASE))
        except StoreError as error:
            return _Records(trouble=str(error).removeprefix("database: "))


def _last_writer(fence: Fence) -> dict[str, Any]:
    return {"holder": _shown(fence.holder), "token": fence.token, "since": fence.taken_at}


def _shown(text: str | None) -> str | None:
    """A text that the sidecar or another task wrote, bounded and printable."""
    return None if text is None else one_line(text)
