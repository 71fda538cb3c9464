"""Causes each fault of the schedule in the fleet, and ends it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from math import inf

import asyncpg
import psutil
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ops.local.servers import ServerError
from runtime.clock import elapsed
from tests.chaos.database import newest_token
from tests.chaos.fleet import Fleet
from tests.chaos.observers import Checked
from tests.chaos.oracles import Deletion
from tests.chaos.redis_faults import SKIPPED, RedisFaults
from tests.chaos.schedule import LEASES, LONGEST_FREEZE, OPERATOR, POSTGRES, REDIS, Fault, Kind

FROZEN = {
    Kind.FREEZE_SIDECAR: ("sidecar",),
    Kind.FREEZE_API: ("api",),
    Kind.FREEZE_TASK: ("sidecar", "api"),
}
SETTLED_WITHIN = 60.0
"""Seconds within which the Redis servers must have settled after a storm."""
NETWORK = {Kind.SLOW, Kind.BLACK_HOLE, Kind.LATE_REQUESTS, Kind.LOST_REPLIES, Kind.CUT, Kind.REFUSE}


@dataclass
class Happening:
    """A fault that happened, with its place and its time in seconds of CLOCK_BOOTTIME.

    `where` is a task, `redis`, `postgres`, or the lease of an operator's command. `leads` are the leases that the task
    led at the start of the fault.
    """

    kind: Kind
    where: str
    began: float
    ended: float = inf
    leads: tuple[str, ...] = ()
    note: str = ""

    @property
    def skipped(self) -> bool:
        """True if the fault was skipped; `note` gives the reason."""
        return self.note.startswith(SKIPPED)

    def __str__(self) -> str:
        whose = f", which leads {' and '.join(self.leads)}" if self.leads else ""
        return f"{self.kind}: {self.where}{whose}{f' ({self.note})' if self.note else ''}"


class Injector:
    """Causes faults in a fleet, and reports the start of each. `happenings` and `deletions` are the results."""

    def __init__(self, fleet: Fleet, report: Callable[[Happening], None]) -> None:
        self.happenings: list[Happening] = []
        self.deletions: list[Deletion] = []
        self._fleet = fleet
        self._report = report
        self._busy: set[tuple[str, str]] = set()
        self._redis_faults = RedisFaults(fleet, report)

    async def inflict(self, fault: Fault) -> Happening:
        """Cause the fault, and return at its end; DISABLED ends later, when the key expires."""
        where = self._where(fault)
        now = elapsed()
        happening = Happening(fault.kind, where, now, now + fault.seconds, self._led_by(where, now))
        self.happenings.append(happening)
        await self._act(fault, happening)
        if fault.kind is Kind.DISABLE:
            happening.ended = max(elapsed(), happening.ended)
        elif fault.kind is not Kind.FREEZE_WRITER:  # _freeze_writer sets the end, then waits for the result
            happening.ended = elapsed()
        return happening

    async def make_stale(self, lease: str) -> None:
        """Freeze the writer that leads the lease, between its check and its write, until the writer's term is stale.

        No other fault may be active. If one of the product's APIs leads, freeze all of them until a writer leads.
        """
        fleet, ttl = self._fleet, self._fleet.ttl
        if not fleet.writers:
            return
        services = [pid for task in fleet.labels if task not in fleet.writers if (pid := self._api(task)) is not None]
        if not self._writer_leads(lease):
            async with _stopped(services):
                await self._wait_for(lambda: self._writer_leads(lease), 2 * ttl)
        await self.inflict(Fault(0.0, Kind.FREEZE_WRITER, lease, LONGEST_FREEZE * ttl, 0.0))

    async def heal(self) -> None:
        """Delete each key without TTL whose holder has ended, as an operator would: such a key never expires."""
        if not await self._wait_for(self._fleet.redis.answers, SETTLED_WITHIN):
            return  # the next check of the run waits for Redis again, and then reports a violation
        for lease in LEASES:
            if await self._without_ttl(lease):
                await asyncio.sleep(2 * self._fleet.heartbeat)  # a living holder restores the TTL
                if await self._without_ttl(lease):
                    happening = Happening(
                        Kind.DELETE, lease, elapsed(), note="a key without TTL, whose holder has ended"
                    )
                    self.happenings.append(happening)
                    await self._delete(happening)
                    happening.ended = elapsed()

    def _led_by(self, task: str, now: float) -> tuple[str, ...]:
        return tuple(lease for lease in LEASES if (found := self._fleet.seen.leader(lease, now)) and found.task == task)

    def _writer_leads(self, lease: str) -> bool:
        leader = self._fleet.seen.leader(lease, elapsed())
        return leader is not None and leader.task in self._fleet.writers

    def _api(self, task: str) -> int | None:
        return self._fleet.slots[task].task.containers["api"].pid

    def _where(self, fault: Fault) -> str:
        if fault.kind in REDIS:
            return "redis"
        if fault.kind in POSTGRES:
            return "postgres"
        if fault.kind in OPERATOR or fault.kind is Kind.FREEZE_WRITER or fault.target not in LEASES:
            return fault.target
        leader = self._fleet.seen.leader(fault.target, elapsed())
        labels = self._fleet.labels
        return leader.task if leader else labels[int(fault.detail * len(labels)) % len(labels)]

    async def _act(self, fault: Fault, happening: Happening) -> None:
        fleet, where, seconds = self._fleet, happening.where, fault.seconds
        match fault.kind:
            case Kind.FREEZE_SIDECAR | Kind.FREEZE_API | Kind.FREEZE_TASK:
                await self._freeze(happening, seconds)
            case Kind.FREEZE_WRITER:
                await self._freeze_writer(happening, seconds)
            case Kind.KILL_SIDECAR | Kind.KILL_API:
                self._report(happening)
                fleet.slots[where].task.containers[fault.kind.removeprefix("kill ")].kill()
            case Kind.KILL_TASK:
                self._report(happening)
                fleet.slots[where].task.kill()
            case Kind.DEPLOY:
                self._report(happening)
                fleet.slots[where].task.stop("a deploy")
            case kind if kind in REDIS:
                await self._redis_faults.inflict(fault, happening)
            case Kind.RESTART_POSTGRES:
                await self._restart_postgres(happening, seconds, immediate=fault.detail < 0.5)
            case Kind.FREEZE_POSTGRES:
                self._report(happening)
                await self._freeze_postgres(seconds)
            case Kind.DELETE:
                await self._delete(happening)
            case Kind.DISABLE:
                await self._operator(happening, lambda key, r: r.set(key, "DISABLED", px=int(seconds * 1000)))
            case Kind.PERSIST:
                await self._operator(happening, lambda key, r: r.persist(key))
            case _:
                await self._network(happening, fault)

    @asynccontextmanager
    async def _alone(self, happening: Happening, what: str) -> AsyncIterator[bool]:
        """Yield false if a fault of the group `what` (`freeze` or `network`) is already active at the same place."""
        place = happening.where, what
        if place in self._busy:
            happening.note = f"{SKIPPED}a fault of the same group is active"
            self._report(happening)
            yield False
            return
        self._busy.add(place)
        try:
            self._report(happening)
            yield True
        finally:
            self._busy.remove(place)

    async def _freeze(self, happening: Happening, seconds: float) -> None:
        async with self._alone(happening, "freeze") as alone:
            if not alone:
                return
            containers = self._fleet.slots[happening.where].task.containers
            pids = [pid for name in FROZEN[happening.kind] if (pid := containers[name].pid) is not None]
            await _frozen(pids, seconds)

    async def _freeze_writer(self, happening: Happening, seconds: float) -> None:
        """Freeze the writer that leads this lease between check and write, until a newer term has claimed the fence.

        The freeze lasts for at most `seconds`. The note records whether the database refused the late write.
        """
        lease, fleet = happening.where, self._fleet
        found: list[tuple[Checked, psutil.Process]] = []

        async def caught() -> bool:
            found.extend(await self._catch(lease))
            return bool(found)

        if not await self._wait_for(caught, fleet.ttl, every=0.01):
            happening.note = f"{SKIPPED}no writer was between check and write"
            self._report(happening)
            return
        (checked, process), *_ = found
        try:
            happening.where, happening.began = checked.task, elapsed()
            happening.leads = self._led_by(checked.task, happening.began)
            self._report(happening)
            self._busy.add((checked.task, "freeze"))

            async def followed() -> bool:
                try:
                    return await newest_token(fleet.postgres.url, lease) > checked.token
                except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                    return False

            stale = await self._wait_for(followed, seconds)
        finally:
            self._busy.discard((checked.task, "freeze"))
            with suppress(psutil.NoSuchProcess):
                process.resume()
        happening.ended = elapsed()

        def refused() -> bool:
            fleet.seen.read()
            return any(
                (one.task, one.lease, one.token) == (checked.task, lease, checked.token) and one.at > happening.ended
                for one in fleet.seen.refusals
            )

        if not stale:
            happening.note = "thawed before a newer term"
        elif await self._wait_for(refused, fleet.call_limit + 2):
            happening.note = "refused"
        else:
            happening.note = "no refusal seen"

    async def _catch(self, lease: str) -> list[tuple[Checked, psutil.Process]]:
        """Suspend the leader of the lease if it is a writer between check and write.

        Returns this writer and its process; an empty list if nothing was suspended.
        """
        seen = self._fleet.seen
        seen.read()
        leader = seen.leader(lease, elapsed())
        checked = seen.checked.get((leader.task, lease)) if leader else None
        if (
            leader is None
            or checked is None
            or (checked.token, checked.pid) != (leader.token, self._api(leader.task))
            or (checked.task, "freeze") in self._busy
        ):
            return []
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(checked.pid)
            process.suspend()
            kept = False
            try:
                while process.status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110 - SIGSTOP sets no event here
                    await asyncio.sleep(0.001)
                seen.read()
                kept = seen.checked.get((checked.task, lease)) == checked
            finally:
                if not kept:
                    process.resume()
            if kept:
                return [(checked, process)]
        return []

    async def _wait_for(
        self, condition: Callable[[], bool | Awaitable[bool]], within: float, *, every: float = 0.05
    ) -> bool:
        """Wait for the condition; returns false if the condition is not true within this number of seconds."""
        deadline = elapsed() + within
        while True:
            came = condition()
            if came if isinstance(came, bool) else await came:
                return True
            if elapsed() > deadline:
                return False
            await asyncio.sleep(every)

    async def _network(self, happening: Happening, fault: Fault) -> None:
        way = self._fleet.redis.ways[happening.where]
        async with self._alone(happening, "network") as alone:
            if not alone:
                return
            try:
                match fault.kind:
                    case Kind.SLOW:
                        way.requests.delay = way.replies.delay = fault.detail * self._fleet.call_limit
                        happening.note = f"{way.requests.delay * 1000:.0f} ms each way"
                    case Kind.BLACK_HOLE:
                        way.black_hole()
                    case Kind.LATE_REQUESTS:
                        way.requests.hold()
                    case Kind.LOST_REPLIES:
                        way.replies.lose()
                    case Kind.REFUSE:
                        await way.refuse()
                    case _:
                        await way.cut()
                await asyncio.sleep(fault.seconds)
            finally:
                way.flow()
                if fault.kind is Kind.LOST_REPLIES:
                    await way.cut()  # a stream with lost bytes is unusable
                if fault.kind is Kind.REFUSE:
                    await way.accept()

    async def _restart_postgres(self, happening: Happening, seconds: float, *, immediate: bool) -> None:
        server = self._fleet.postgres
        happening.note = "like a crash" if immediate else "clean shutdown"
        self._report(happening)
        if server.process is not None:
            server.process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            while server.exit_code is None:  # noqa: ASYNC110 - the server cannot set an event here
                await asyncio.sleep(0.02)
        await asyncio.sleep(seconds)
        for last in (False, False, False, True):
            try:
                await server.start_beside()
            except ServerError:  # backends of the previous server are still ending
                if last:
                    raise
                await asyncio.sleep(0.5)
            else:
                return

    async def _freeze_postgres(self, seconds: float) -> None:
        process = self._fleet.postgres.process
        if process is not None and process.poll() is None:
            backends = psutil.Process(process.pid).children(recursive=True)
            await _frozen([process.pid, *(backend.pid for backend in backends)], seconds)

    async def _delete(self, happening: Happening) -> None:
        while not await self._fleet.redis.answers():  # noqa: ASYNC110 - the server cannot set an event here
            await asyncio.sleep(0.1)
        since = happening.began = elapsed()
        heard = await self._operator(happening, lambda key, r: r.delete(key))
        self.deletions.append(Deletion(happening.where, since, elapsed() if heard else since + 5 * self._fleet.ttl))

    async def _operator(self, happening: Happening, command: Callable[[str, Redis], Awaitable[object]]) -> bool:
        """Send the command to the primary, as from redis-cli; returns true if the primary answered."""
        self._report(happening)
        try:
            async with self._fleet.redis.client() as redis:
                await command(self._fleet.keys()[happening.where], redis)
        except (RedisError, OSError) as error:
            happening.note = f"no answer: {type(error).__name__}"
            return False
        return True

    async def _without_ttl(self, lease: str) -> bool:
        async with self._fleet.redis.client() as redis:
            return bool(await redis.ttl(self._fleet.keys()[lease]) == -1)


async def _frozen(pids: list[int], seconds: float) -> None:
    async with _stopped(pids):
        await asyncio.sleep(seconds)


@asynccontextmanager
async def _stopped(pids: list[int]) -> AsyncIterator[None]:
    """Send SIGSTOP to all processes; at the end of the block, send SIGCONT to those that still live."""
    stopped: list[psutil.Process] = []
    try:
        for pid in pids:
            try:
                process = psutil.Process(pid)
                process.suspend()
            except psutil.NoSuchProcess:
                continue
            stopped.append(process)
        yield
    finally:
        for process in stopped:
            try:
                process.resume()  # psutil recognises a reused pid
            except psutil.NoSuchProcess:
                continue
