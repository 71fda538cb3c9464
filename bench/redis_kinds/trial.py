"""One row of the table: tasks of a sidecar and a client each, an event, and the numbers from the clients' diaries."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.redis_kinds.client import LEASE
from bench.redis_kinds.servers import FIRST, USER, Event, cause, servers, write_password
from runtime.clock import elapsed
from tests.chaos.observers import Belief, Observations
from tests.chaos.oracles import overlaps
from tests.chaos.redis_nodes import RedisNodes, Unsettled
from tests.chaos.schedule import Redis
from tests.support.processes import Process, Sidecar, command_of, get_json
from tests.support.waiting import eventually

TASKS = 3
HAND_OVERS = 9
"""Hand-overs after the event."""
STARTS_WITHIN = 120.0
"""Timeout for the start of the servers and of the tasks on a busy machine, in seconds."""
SETTLES_WITHIN = 120.0
"""Timeout for the recovery of all servers and tasks, in seconds beyond the guard and one ttl."""

ShowStep = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """The numbers of a row, in seconds. `without` is the longest time without a leader; it must be at most `bound`."""

    redis: Redis
    event: Event
    ttl: float
    without: float
    bound: float
    overlap: float
    hand_overs: tuple[float, ...]

    @property
    def keeps(self) -> bool:
        """True if the goals are met."""
        return self.overlap == 0 and self.without <= self.bound


class Broken(Exception):
    """A row that did not finish; the text names the step."""


async def trial(redis: Redis, event: Event, ttl: float, folder: Path, show_step: ShowStep) -> Row:
    """Run a row in an empty folder.

    Raises:
        Broken: the tasks did not settle at the start or after the event, the servers refused the event, or a hand-over
            took too long.
    """
    labels = [f"task{number}" for number in range(TASKS)]
    password = folder / "password"
    write_password(password, FIRST)
    async with AsyncExitStack() as open_:
        show_step("starting the servers")
        nodes = await open_.enter_async_context(servers(redis, folder, ttl, labels, event))
        tasks = await open_.enter_async_context(_running(nodes, ttl, folder, labels, password))
        show_step("starting the tasks")
        before = await tasks.led(STARTS_WITHIN, "at the start")
        bound = 2 * ttl + nodes.serves_on
        began = elapsed()
        show_step(f"{before.task} leads; {event}")
        try:
            await cause(event, nodes, password, before.task, [nodes.lease_key.replace("{name}", LEASE)])
        except Unsettled as reason:
            raise Broken(f"the servers refused the event: {reason}") from None
        show_step("waiting for the recovery")
        await tasks.led(bound + SETTLES_WITHIN, "after the event")
        ended = elapsed()
        gap = longest_gap(tasks.seen.beliefs, began, ended)
        moves = []
        for number in range(HAND_OVERS):
            show_step(f"hand-over {number + 1} of {HAND_OVERS}")
            moves.append(await tasks.hand_over(2 * ttl))
        seen = tasks.seen
        both = sum(overlap.seconds for overlap in overlaps(seen.beliefs))
    return Row(redis, event, ttl, gap, bound, both, tuple(moves))


def longest_gap(beliefs: Iterable[Belief], since: float, until: float) -> float:
    """Return the longest time between `since` and `until` in which no client believed that it led."""
    longest, reached = 0.0, since
    for belief in sorted(beliefs, key=lambda belief: belief.began):
        if belief.end > reached:
            longest = max(longest, min(belief.began, until) - reached)
            reached = max(reached, belief.end)
    return max(longest, until - reached)


class _Tasks:
    """The running tasks."""

    def __init__(self, folder: Path, nodes: RedisNodes, heartbeat: float) -> None:
        self.seen = Observations(folder)
        self.sidecars: dict[str, Sidecar] = {}
        self._clients: dict[str, Process] = {}
        self._nodes = nodes
        self._heartbeat = heartbeat

    def add(self, label: str, sidecar: Sidecar, client: Process) -> None:
        """Add a task."""
        self.sidecars[label], self._clients[label] = sidecar, client

    def leader(self) -> Belief | None:
        """Return the belief of the client that leads now; None if no client leads."""
        self.seen.read()
        return self.seen.leader(LEASE, elapsed())

    async def led(self, within: float, when: str) -> Belief:
        """Wait until the servers have settled, one task leads and the others follow.

        This must hold again two heartbeats later. Within a heartbeat the leader renews at the new primary. A hand-over
        before that renewal waits for the guard.
        """
        try:
            async with asyncio.timeout(within):
                while True:
                    await eventually(self._in_place, within=within)
                    await asyncio.sleep(2 * self._heartbeat)
                    if await self._in_place() and (leader := self.leader()) is not None:
                        return leader
        except TimeoutError:
            states = {label: await _state(sidecar) for label, sidecar in self.sidecars.items()}
            raise Broken(f"{when}: not recovered within {within:.0f} s: {states}") from None

    async def hand_over(self, within: float) -> float:
        """Make the leader's client resign; returns the seconds to the next client's belief."""
        old = self.leader()
        if old is None:
            raise Broken("no task leads before a hand-over")
        self._clients[old.task].send(signal.SIGUSR1)

        def next_one() -> Belief | None:
            new = self.leader()
            return new if new is not None and new.token > old.token else None

        try:
            new: Belief = await eventually(next_one, within=within)
        except TimeoutError:
            raise Broken(f"a hand-over took more than {within:.0f} s") from None
        await eventually(self._in_place, within=within)
        return new.began - old.ended

    async def _in_place(self) -> bool:
        if not await self._nodes.answers() or self.leader() is None:
            return False
        states = [await _state(sidecar) for sidecar in self.sidecars.values()]
        return sorted(states) == ["following"] * (len(states) - 1) + ["leading"]


async def _state(sidecar: Sidecar) -> str:
    shown = await get_json(f"{sidecar.url}/status")
    return str(shown["leases"][LEASE]["state"]) if shown else "no answer"


@asynccontextmanager
async def _running(
    nodes: RedisNodes, ttl: float, folder: Path, labels: list[str], password: Path
) -> AsyncIterator[_Tasks]:
    heartbeat = ttl / 3
    timings = {
        "LEASE_TTL": f"{ttl:g}",
        "HEARTBEAT_INTERVAL": f"{heartbeat:g}",
        "GRANT_TTL": f"{min(5.0, ttl / 4):g}",
        "REDIS_TIMEOUT": "",
    }
    login = {"REDIS_USERNAME": USER, "REDIS_PASSWORD_FILE": str(password), "REDIS_URL": ""}
    leases = {"LEASES": LEASE, "LEASE_KEY": nodes.lease_key, "LOG_FORMAT": "text"}
    leases["FAILOVER_GUARD"] = os.environ.get("FAILOVER_GUARD", "true")
    tasks = _Tasks(folder, nodes, heartbeat)
    async with AsyncExitStack() as open_:
        for label in labels:
            settings = {**timings, **login, **leases, **nodes.settings(label)}
            sidecar = Sidecar(folder / f"{label}-sidecar.log", "", label, **settings)
            await open_.enter_async_context(sidecar)
            words = sidecar.url, str(tasks.seen.diary(label))
            client = command_of("bench.redis_kinds.client", folder / f"{label}-client.log", *words)
            await open_.enter_async_context(client)
            tasks.add(label, sidecar, client)
        yield tasks
