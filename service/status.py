"""What /background/status tells: who leads, and when each job ran and will run. Any task can say it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service import answers
from service.access import StoreAccess
from service.background import SCHEDULER_LEASE, TRACKER_LEASE
from service.database import StoreError
from service.market import Calendar
from service.timetable import JOBS, next_due, utc_now
from service.tracker import Loading
from sidecar.client import Leadership


@dataclass(frozen=True, slots=True)
class BackgroundStatus:
    """Reads the leaderships of this process, the database's records, and the timetable, which all tasks share."""

    leaderships: Mapping[str, Leadership]
    access: StoreAccess
    calendar: Calendar
    last_tick: Callable[[], datetime | None]
    next_tick: Callable[[], datetime | None]
    now: Callable[[], datetime] = utc_now
    loading: Callable[[], Loading | None] = lambda: None

    @property
    def sidecar(self) -> str:
        """`ok`, or what is wrong with it."""
        known = any(leadership.state is not None for leadership in self.leaderships.values())
        return "ok" if known else "no answer yet"

    async def report(self) -> dict[str, Any]:
        """The leases as this process sees them; the jobs, whose last runs are null while the database is away."""
        database: str | None = None
        try:
            store = self.access.store
            fences, runs = await store.fences(), await store.job_runs()
        except StoreError as error:
            database, fences, runs = str(error).removeprefix("database: "), {}, {}
        leases = {}
        for name, leadership in self.leaderships.items():
            fence = fences.get(name)
            leases[name] = {
                "is_leader": leadership.is_leader,
                "state": leadership.state or "unknown",
                "holder": leadership.holder,
                "token": leadership.token,
                "remaining": round(leadership.remaining(), 3),
                "last_writer": fence and {"holder": fence.holder, "token": fence.token, "since": fence.taken_at},
            }
        jobs: dict[str, Any] = {
            "tracker": {
                "lease": TRACKER_LEASE,
                "last_run": self.last_tick(),
                "next_run": self.next_tick(),
                "loading": _progress(self.loading()),
            },
        }
        for job in JOBS:
            run = runs.get(job)
            due = next_due(job, self.calendar, self.now())
            jobs[job] = {"lease": SCHEDULER_LEASE, "last_run": run and answers.job_run(run), "next_run": due}
        instance_ids = (leadership.instance_id for leadership in self.leaderships.values())
        return {
            "instance_id": next(filter(None, instance_ids), None),
            "leases": leases,
            "jobs": jobs,
            "database": database or "ok",
        }


def _progress(loading: Loading | None) -> dict[str, int] | None:
    """How many portfolios' positions the leader has loaded, of how many, while it loads; any other task's is null."""
    if loading is None:
        return None
    return {"portfolios_done": loading.done, "portfolios": loading.total}
