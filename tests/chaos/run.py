"""One chaos run: rounds of storm and calm on a fleet, then the judgement of the observations."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from runtime.clock import elapsed
from tests.chaos import oracles
from tests.chaos.database import Accepted
from tests.chaos.faults import Happening, Injector
from tests.chaos.fleet import Fleet, left_over
from tests.chaos.observers import Belief, Life, Refusal
from tests.chaos.oracles import Deletion, Violation
from tests.chaos.schedule import LEASES, Fault, Kind, Redis, Round
from tests.support.waiting import standstill

SLACK = 2.0
"""Seconds that a busy machine may add to a hand-over or a takeover."""

HEALTHY_WITHIN = 90.0
"""Seconds within which all tasks must be healthy again."""

PROBED_WITHIN = 10.0
"""Seconds after a freeze for which a health check that began during the freeze may still fail."""

Print = Callable[[str], None]


@dataclass
class Stretch:
    """A part of the run, in seconds of CLOCK_BOOTTIME: the start, or a round's storm or calm."""

    name: str
    round: int
    began: float
    ended: float


@dataclass
class Measure:
    """The seconds without a leader after a fault in a calm.

    `bound` is the limit for this fault (zero, the grant or the ttl) plus `SLACK` and the longest standstill of this
    process.
    """

    round: int
    kind: Kind
    lease: str
    seconds: float
    bound: float


@dataclass
class Record:
    """All results of a run.

    Times are in seconds of CLOCK_BOOTTIME, except in `writes`, which has epoch times. `boot` is the epoch time of
    CLOCK_BOOTTIME 0.
    """

    seed: int
    tasks: list[str]
    ttl: float
    boot: float
    began: float
    ended: float = 0.0
    stretches: list[Stretch] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    beliefs: list[Belief] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    writes: list[Accepted] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)


async def chaos(
    folder: Path,
    rounds: tuple[Round, ...],
    *,
    seed: int,
    tasks: int,
    ttl: float,
    services: int,
    fence: bool,
    min_replicas: int,
    print_line: Print,
    other_version: Path | None = None,
    redis: Redis = Redis.SERVER,
) -> Record:
    """Run the rounds on a new fleet under `folder`; returns the observations and the violations."""
    fleet = Fleet(
        folder, tasks, ttl, services, fence=fence, min_replicas=min_replicas, other_version=other_version, redis=redis
    )
    record = Record(seed, fleet.labels, ttl, time.time() - elapsed(), elapsed())
    conductor = _Conductor(fleet, record, print_line)
    async with fleet.running():
        await conductor.play(rounds)
        print_line("stopping every task, as ECS does")
        await _stop(fleet)
        record.writes = await fleet.writes()
    fleet.seen.read()
    record.ended = elapsed()
    record.violations += [Violation("left running", process) for process in left_over()]
    _judge(record, fleet, conductor.injector)
    return record


async def _stop(fleet: Fleet) -> None:
    """Stop the tasks while the servers still run, because the last writes count too."""
    fleet.stopping.set()
    for slot in fleet.slots.values():
        for container in slot.task.containers.values():
            await container.over.wait()


def _judge(record: Record, fleet: Fleet, injector: Injector) -> None:
    seen = fleet.seen
    frozen = [
        (one.where, one.began, one.ended)
        for one in injector.happenings
        if one.kind in (Kind.FREEZE_SIDECAR, Kind.FREEZE_TASK)
    ]
    record.happenings, record.deletions = injector.happenings, injector.deletions
    record.beliefs, record.refusals, record.lives = seen.beliefs, seen.refusals, seen.lives
    record.violations += oracles.two_believers(record.beliefs, record.deletions, record.boot)
    record.violations += oracles.stale_writes(record.writes, record.boot)
    record.violations += oracles.forged_writes(record.writes, record.beliefs)
    record.violations += oracles.leaders_refused(record.refusals, record.beliefs)
    record.violations += oracles.tokens_shared(record.beliefs)
    record.violations += oracles.sidecars_unhealthy(fleet.log.unhealthy, frozen, PROBED_WITHIN)
    record.violations += oracles.tracebacks(fleet.log.lines())


class _Conductor:
    def __init__(self, fleet: Fleet, record: Record, print_line: Print) -> None:
        self.injector = Injector(fleet, lambda happening: self._say(str(happening)))
        self._fleet = fleet
        self._record = record
        self._print = print_line
        self._reported = 0

    async def play(self, rounds: tuple[Round, ...]) -> None:
        """Run all rounds, and report each new leader."""
        async with asyncio.TaskGroup() as group:
            news = group.create_task(self._news())
            async with self._stretch("start", 0):
                began = await self._led("at the start")
            for each in rounds if began else ():
                await self._round(each, len(rounds))
            news.cancel()

    async def _round(self, each: Round, of: int) -> None:
        self._say(f"round {each.number} of {of}: {len(each.faults)} faults in {each.seconds:.0f} s")
        async with self._stretch("storm", each.number), asyncio.TaskGroup() as group:
            began = elapsed()
            for fault in each.faults:
                group.create_task(self._at(began + fault.at, fault))
        async with self._stretch("calm", each.number):
            await self.injector.heal()
            if await self._led(f"after the storm of round {each.number}"):
                for lease in LEASES:
                    await self.injector.make_stale(lease)
                if await self._led(f"after stale writes of round {each.number}"):
                    await self._measure(each)
                await asyncio.sleep(self._fleet.ttl / 3)  # long enough to be visible in the picture
        seen = self._fleet.seen
        found = oracles.two_believers(seen.beliefs, self.injector.deletions, self._record.boot)
        found += oracles.stale_writes(await self._fleet.writes(), self._record.boot)
        count = len(self._record.violations) + len(found)
        self._say(f"round {each.number} is over: {len(seen.beliefs)} terms so far, {count} violations")

    async def _at(self, at: float, fault: Fault) -> None:
        await asyncio.sleep(max(0.0, at - elapsed()))
        await self.injector.inflict(fault)

    async def _led(self, when: str) -> bool:
        """Wait until all tasks are healthy, each lease has a leader, and every task takes part in the elections.

        A condition that does not become true within its limit is a violation.
        """
        fleet, ttl = self._fleet, self._fleet.ttl
        await self._until(self._all_well, HEALTHY_WITHIN, "task not healthy", f"{when}: a task has not become healthy")
        disabled = max((one.ended for one in self.injector.happenings if one.kind is Kind.DISABLE), default=0.0)
        await asyncio.sleep(max(0.0, disabled - elapsed()))
        bound = 2.5 * ttl + 15 * fleet.call_limit + 5 + fleet.redis.serves_on
        led = await self._until(self._all_led, bound, "nobody leads", f"{when}: a lease has no leader")
        return led and await self._until(
            fleet.campaigning, bound + 35, "candidate stuck", f"{when}: a task does not take part in an election"
        )

    async def _measure(self, each: Round) -> None:
        """Remove the leader by the calm's fault, and measure the time until a client leads under a later term."""
        fleet, fault, lease = self._fleet, each.calm, each.calm.target
        before = fleet.seen.leader(lease, elapsed())
        if before is None:
            return
        allowed = {Kind.DEPLOY: 0.0, Kind.KILL_API: fleet.grant_ttl, Kind.KILL_TASK: fleet.ttl}[fault.kind] + SLACK

        async def followed() -> bool:
            after = fleet.seen.leader(lease, elapsed())
            return after is not None and after.token > before.token

        slow = f"after {fault.kind} of {before.task} nobody leads {lease}"
        async with standstill() as stood:
            done = await self.injector.inflict(fault)
            has_followed = await self._until(followed, allowed + 2 * fleet.ttl, "slow takeover", slow)
        if has_followed:
            allowed += stood.longest  # the whole machine may have stood still
            after = fleet.seen.leader(lease, elapsed())
            since = before.end if fault.kind is Kind.DEPLOY else done.began
            seconds = after.began - since if after else 0.0
            self._record.measures.append(Measure(each.number, fault.kind, lease, seconds, allowed))
            self._say(f"{lease}: has a leader again {seconds * 1000:.0f} ms after the {fault.kind}")
            if seconds > allowed:
                self._record.violations.append(Violation("slow takeover", f"{slow} for {seconds:.2f} s", elapsed()))

    async def _all_well(self) -> bool:
        return self._fleet.steady() and await self._fleet.redis.answers()

    async def _all_led(self) -> bool:
        return all(self._fleet.seen.leader(lease, elapsed()) for lease in LEASES)

    async def _until(self, condition: Callable[[], Awaitable[bool]], bound: float, law: str, text: str) -> bool:
        """Wait for the condition; record a violation if the condition is not true within `bound` seconds."""
        deadline = elapsed() + bound
        while not await condition():
            if elapsed() > deadline:
                self._record.violations.append(Violation(law, f"{text} within {bound:.1f} s", elapsed()))
                self._say(f"VIOLATION: {law}: {text} within {bound:.1f} s")
                return False
            await asyncio.sleep(0.05)
        return True

    def _stretch(self, name: str, number: int) -> "_Timed":
        return _Timed(self._record.stretches, name, number)

    async def _news(self) -> None:
        """Report each new leader."""
        while True:
            for belief in self._fleet.seen.beliefs[self._reported :]:
                self._say(f"{belief.lease}: {belief.task} leads (token {belief.token})")
                self._reported += 1
            await asyncio.sleep(0.05)

    def _say(self, text: str) -> None:
        self._print(f"{elapsed() - self._record.began:7.2f}  {text}")


class _Timed:
    """Records the start and the end of a stretch of the run."""

    def __init__(self, stretches: list[Stretch], name: str, number: int) -> None:
        self._stretch = Stretch(name, number, 0.0, 0.0)
        self._stretches = stretches

    async def __aenter__(self) -> None:
        self._stretch.began = elapsed()
        self._stretches.append(self._stretch)

    async def __aexit__(self, *exc: object) -> None:
        self._stretch.ended = elapsed()
