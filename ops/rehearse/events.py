"""The events of a rehearsal. Each event is a row of the table."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from ops.rehearse import faults
from ops.rehearse.isolation import until
from ops.rehearse.measure import Fault, Span
from ops.rehearse.member import API
from ops.rehearse.network import POSTGRES, REDIS
from ops.rehearse.programs import RehearsalError
from ops.rehearse.stage import TASKS, Stage

AT_ONCE = 2.0
"""Maximum time of a hand-over, in seconds. A hand-over takes milliseconds; observers and a busy machine add delays."""

WELL_WITHIN = 240.0
"""Seconds after an event within which the service must be healthy again."""

FAILED_WITHIN = 600.0
"""Seconds within which the circuit breaker must roll back a deployment: health checks have to fail for three tasks."""


TAKEN = 0.9
"""Share of an API's memory limit that the rehearsal fills. The API refuses new streams, but is not killed."""

NOTICED_WITHIN = 20.0
"""Seconds within which an API must notice that its memory is short, or is sufficient again."""


@dataclass
class Report:
    """The results of an event.

    Attributes:
        since: start of the recovery, in seconds since the epoch; `healthy_after` counts from this time.
        hold: additional seconds until the next event.
        unwanted: spans from a scale to 0 until a task serves again; no request can succeed in them.
        complaints: problems, as text.
        faults: the faults of each task.
    """

    since: float
    hold: float = 0.0
    unwanted: list[Span] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def hit(self, task: str, since: float) -> None:
        """Record a fault of a task that lasted from `since` until now."""
        self.faults.append(Fault(task, Span(since, time.time())))


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        name: name of the row.
        play: performs the event; returns once it is done, even if the service is not healthy yet.
        lossless: no request may fail.
        by_expiry: the lease may have to expire before another task leads.
    """

    name: str
    play: Callable[[Stage, Report], Awaitable[None]]
    lossless: bool = False
    by_expiry: bool = False


async def _deploy(stage: Stage, report: Report, *, version: str, migrations: bool = False) -> None:
    if migrations:
        stage.journal.event("event", f"applies the migrations of version {version}")
        await stage.one_off(version, "migrate")
        report.since = time.time()
    stage.deploy(version)
    await until(lambda: stage.service.reached, WELL_WITHIN, "the new version is healthy")
    if stage.service.version.name != version:
        report.complaints.append("the circuit breaker rolled the deployment back")


async def _deploy_broken(stage: Stage, report: Report, *, version: str) -> None:
    stage.deploy(version)
    service = stage.service
    await until(lambda: service.rolled_back or service.reached, FAILED_WITHIN, "the deploy has failed")
    if not stage.service.rolled_back:
        report.complaints.append("a version that cannot run counted as healthy")


async def _scale(stage: Stage, report: Report) -> None:
    """Scale to several counts. No request can succeed from the scale to 0 until the first new task is healthy."""
    unwanted_since = 0.0
    for desired in (1, 3, 0, TASKS):
        if desired == 0:
            unwanted_since = time.time()
        stage.service.scale(desired)
        report.since = time.time()
        await until(stage.is_well, WELL_WITHIN, f"{desired} tasks are healthy")
    served_again = min(member.healthy_at for member in stage.service.running if member.healthy_at is not None)
    report.unwanted.append(Span(unwanted_since, served_again))


async def _cut(
    stage: Stage, report: Report, *, peers: tuple[str, ...] = (), outgoing: bool = True, incoming: bool = True
) -> None:
    """Cut the leader off from these peers for the time `cut` of the profile; without peers, cut it off from all."""
    member = stage.leader()
    stage.journal.event("event", f"{member.label} (leader) is cut off for {stage.profile.cut:g} s")
    if member.pod is None:
        return
    began = time.time()
    await member.pod.cut(peers, outgoing=outgoing, incoming=incoming)
    await asyncio.sleep(stage.profile.cut)
    report.hit(member.label, began)
    report.since = time.time()
    if member.pod is not None:
        await member.pod.heal()


async def _fill(stage: Stage, report: Report, *, container: str) -> None:
    member = stage.leader()
    stage.journal.event("event", f"{member.label}/{container} of the leader uses up its memory")
    await faults.fill_memory(member, container)
    report.since = time.time()
    report.hit(member.label, report.since)


async def _short_of_memory(stage: Stage, report: Report) -> None:
    """Take nine tenths of the memory of the leader's API. It refuses new streams, and keeps the open ones."""
    member = stage.leader()
    began = time.time()
    stage.journal.event("event", f"{member.label}/{API} of the leader has {TAKEN:.0%} of its memory in use")

    async def refused() -> bool:
        status, retry_after = await stage.new_stream(member)
        return status == 503 and retry_after is not None

    async def accepted() -> bool:
        return (await stage.new_stream(member))[0] == 200

    async with faults.memory_taken(member, API, TAKEN):
        await until(refused, NOTICED_WITHIN, "the API refuses a new stream")
    report.hit(member.label, began)
    report.since = time.time()
    await until(accepted, NOTICED_WITHIN, "the API accepts a new stream again")
    if broken := sum(each.at >= began for each in stage.load.broken):
        report.complaints.append(f"{broken} open streams broke")


async def _kill(stage: Stage, report: Report, *, container: str) -> None:
    member = stage.leader()
    stage.journal.event("event", f"SIGKILL to {member.label}/{container} of the leader")
    report.hit(member.label, time.time())
    await faults.kill(member, container)


async def _kill_while_mixed(stage: Stage, report: Report, *, version: str) -> None:
    """Kill the leader's API during a deploy, when a task of the new version serves and the old tasks still run."""

    def serves() -> bool:
        return any(member.healthy for member in stage.service.running if member.version.name == version)

    stage.deploy(version)
    await until(serves, WELL_WITHIN, "the new version serves")
    await _kill(stage, report, container="api")


async def _fail_over(stage: Stage, report: Report) -> None:
    """Fail over to the replica. `hold` is one ttl: a lost write can have effects until the failover guard ends."""
    stage.journal.event("event", "the Redis primary is killed; its replica is promoted")
    await stage.fail_over()
    report.hold = stage.ttl


async def _interrupt(stage: Stage, report: Report) -> None:
    """Interrupt the leader as Spot does: deregistration and SIGTERM at once, and SIGKILL after two minutes."""
    member = stage.leader()
    notice = stage.profile.spot_notice
    stage.journal.event("event", f"{member.label} (leader) is interrupted: it has {notice:g} s left")
    report.hit(member.label, time.time())
    member.stop(delay=0.0)
    try:
        await until(lambda: member.ended is not None, notice, f"{member.label} has ended")
    except RehearsalError as error:
        member.kill()
        report.complaints.append(str(error))


USUAL = [
    Event("deploy", partial(_deploy, version="next"), lossless=True),
    Event("deploy back", partial(_deploy, version="today"), lossless=True),
    Event("deploy, never healthy", partial(_deploy_broken, version="broken"), lossless=True),
    Event("deploy, never answers", partial(_deploy_broken, version="silent"), lossless=True),
    Event("scale 1, 3, 0, 2", _scale, lossless=True),
    Event("cut off from Redis", partial(_cut, peers=REDIS), by_expiry=True),
    Event("cut off from Postgres", partial(_cut, peers=(POSTGRES,)), by_expiry=True),
    Event("cut off from everything", _cut, by_expiry=True),
    Event("cut off, incoming only", partial(_cut, outgoing=False), by_expiry=True),
    Event("cut off, outgoing only", partial(_cut, incoming=False), by_expiry=True),
    Event("API short of memory", _short_of_memory, lossless=True),
    Event("API over its memory", partial(_fill, container="api"), by_expiry=True),
    Event("sidecar over its memory", partial(_fill, container="sidecar"), by_expiry=True),
    Event("kill -9 API", partial(_kill, container="api"), by_expiry=True),
    Event("kill -9 sidecar", partial(_kill, container="sidecar"), by_expiry=True),
    Event("Redis failover", _fail_over, by_expiry=True),
    Event("Spot interruption", _interrupt),
]
"""Every event of a rehearsal of today's version."""

SHORT = (
    "deploy",
    "deploy back",
    "deploy, never healthy",
    "scale 1, 3, 0, 2",
    "cut off from Redis",
    "cut off from everything",
    "API short of memory",
    "API over its memory",
    "kill -9 API",
    "kill -9 sidecar",
    "Redis failover",
    "Spot interruption",
)
"""The events of the short rehearsal."""

BETWEEN = [
    Event("deploy old -> today", partial(_deploy, version="today", migrations=True), lossless=True),
    Event("deploy today -> old", partial(_deploy, version="old"), lossless=True),
    Event("kill -9 API (old)", partial(_kill, container="api"), by_expiry=True),
    Event("deploy old -> today again", partial(_deploy, version="today"), lossless=True),
    Event("mixed: kill -9 API", partial(_kill_while_mixed, version="old"), by_expiry=True),
    Event("Redis failover", _fail_over, by_expiry=True),
]
"""The events of a rehearsal that begins with an older version."""
