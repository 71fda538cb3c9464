"""How each fault of the schedule is done to the fleet, and undone."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf

import psutil
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ops.local.servers import ServerError
from sidecar.clock import elapsed
from tests.chaos.fleet import Fleet
from tests.chaos.oracles import Deletion
from tests.chaos.schedule import LEASES, OPERATOR, POSTGRES, REDIS, Fault, Kind

FROZEN = {
    Kind.FREEZE_SIDECAR: ("sidecar",),
    Kind.FREEZE_API: ("api",),
    Kind.FREEZE_TASK: ("sidecar", "api"),
}
NETWORK = {Kind.SLOW, Kind.BLACK_HOLE, Kind.LATE_REQUESTS, Kind.LOST_REPLIES, Kind.CUT, Kind.REFUSE}


@dataclass
class Happening:
    """A fault that was done: to whom, and when, in seconds of CLOCK_BOOTTIME.

    `where` is a task, `redis`, `postgres`, or the lease that the operator touched; `leads` what the task led then.
    """

    kind: Kind
    where: str
    began: float
    ended: float = inf
    leads: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        whose = f", which leads {' and '.join(self.leads)}" if self.leads else ""
        return f"{self.kind}: {self.where}{whose}{f' ({self.note})' if self.note else ''}"


class Injector:
    """Does faults to a fleet; `happenings` and `deletions` say what came of them, `told` is given each as it begins."""

    def __init__(self, fleet: Fleet, told: Callable[[Happening], None]) -> None:
        self.happenings: list[Happening] = []
        self.deletions: list[Deletion] = []
        self._fleet = fleet
        self._told = told
        self._busy: set[tuple[str, str]] = set()

    async def inflict(self, fault: Fault) -> Happening:
        """Do it, and return once it is over."""
        where = self._where(fault)
        now = elapsed()
        leads = tuple(
            lease for lease in LEASES if (found := self._fleet.seen.leader(lease, now)) and found.task == where
        )
        happening = Happening(fault.kind, where, now, now + fault.seconds, leads)
        self.happenings.append(happening)
        await self._act(fault, happening)
        happening.ended = max(elapsed(), happening.ended) if fault.kind is Kind.DISABLE else elapsed()
        return happening

    async def heal(self) -> None:
        """After a storm: what no fault undoes by itself. A key without TTL whose holder is gone is the operator's."""
        for lease in LEASES:
            if await self._without_ttl(lease):
                await asyncio.sleep(2 * self._fleet.heartbeat)  # its holder, if it lives, sets that right
                if await self._without_ttl(lease):
                    happening = Happening(Kind.DELETE, lease, elapsed(), note="a key without TTL, its holder is gone")
                    self.happenings.append(happening)
                    await self._delete(happening)
                    happening.ended = elapsed()

    def _where(self, fault: Fault) -> str:
        if fault.kind in REDIS:
            return "redis"
        if fault.kind in POSTGRES:
            return "postgres"
        if fault.kind in OPERATOR or fault.target not in LEASES:
            return fault.target
        leader = self._fleet.seen.leader(fault.target, elapsed())
        labels = self._fleet.labels
        return leader.task if leader else labels[int(fault.detail * len(labels)) % len(labels)]

    async def _act(self, fault: Fault, happening: Happening) -> None:
        fleet, where, seconds = self._fleet, happening.where, fault.seconds
        match fault.kind:
            case Kind.FREEZE_SIDECAR | Kind.FREEZE_API | Kind.FREEZE_TASK:
                await self._freeze(happening, seconds)
            case Kind.KILL_SIDECAR | Kind.KILL_API:
                self._told(happening)
                fleet.slots[where].task.containers[fault.kind.removeprefix("kill ")].kill()
            case Kind.KILL_TASK:
                self._told(happening)
                fleet.slots[where].task.kill()
            case Kind.DEPLOY:
                self._told(happening)
                fleet.slots[where].task.stop("a deploy")
            case Kind.FREEZE_REDIS:
                self._told(happening)
                await fleet.redis.freeze(seconds)
            case Kind.RESTART_REDIS:
                self._told(happening)
                await fleet.redis.restart_empty(seconds)
            case Kind.FAILOVER:
                lag = fault.detail * 1.2 * fleet.ttl
                happening.note = f"the replica lags {lag:.2f} s"
                self._told(happening)
                await fleet.redis.fail_over(lag, seconds / 3)
            case Kind.RESTART_POSTGRES:
                await self._restart_postgres(happening, seconds, immediate=fault.detail < 0.5)
            case Kind.FREEZE_POSTGRES:
                self._told(happening)
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
        """False if the same is being done there already."""
        place = happening.where, what
        if place in self._busy:
            happening.note = "left out: it is under way already"
            self._told(happening)
            yield False
            return
        self._busy.add(place)
        try:
            self._told(happening)
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
                    await way.cut()  # a stream that lost something is of no use any more
                if fault.kind is Kind.REFUSE:
                    await way.accept()

    async def _restart_postgres(self, happening: Happening, seconds: float, *, immediate: bool) -> None:
        server = self._fleet.postgres
        happening.note = "as by a crash" if immediate else "in order"
        self._told(happening)
        if server.process is not None:
            server.process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            while server.exit_code is None:  # noqa: ASYNC110 - another process tells no event of ours
                await asyncio.sleep(0.02)
        await asyncio.sleep(seconds)
        for last in (False, False, False, True):
            try:
                await server.start_beside()
            except ServerError:  # backends of the one before are still leaving
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
        while not await self._fleet.redis.answers():  # noqa: ASYNC110 - nor does a server
            await asyncio.sleep(0.1)
        since = happening.began = elapsed()
        heard = await self._operator(happening, lambda key, r: r.delete(key))
        self.deletions.append(Deletion(happening.where, since, elapsed() if heard else since + 5 * self._fleet.ttl))

    async def _operator(self, happening: Happening, command: Callable[[str, Redis], Awaitable[object]]) -> bool:
        """Give the command to the primary, as from redis-cli; whether it was answered."""
        self._told(happening)
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
    """SIGSTOP to all at one stroke, SIGCONT after so many seconds to those that live still."""
    stopped: list[psutil.Process] = []
    try:
        for pid in pids:
            try:
                process = psutil.Process(pid)
                process.suspend()
            except psutil.NoSuchProcess:
                continue
            stopped.append(process)
        await asyncio.sleep(seconds)
    finally:
        for process in stopped:
            try:
                process.resume()  # psutil knows a pid that was given out anew
            except psutil.NoSuchProcess:
                continue
