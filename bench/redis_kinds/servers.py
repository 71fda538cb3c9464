"""The kinds of Redis, and the events on each of them."""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path

from redis.exceptions import RedisError

from tests.chaos.cluster_nodes import ClusterNodes
from tests.chaos.ports import quiet_port
from tests.chaos.redis_nodes import RedisNodes, Unsettled, ask
from tests.chaos.schedule import Redis
from tests.chaos.sentinel_nodes import SentinelNodes
from tests.chaos.server_clock import ClockedRedis
from tests.support.proxy import Proxy

USER = "sidecar"
FIRST, SECOND = "first-password", "second-password"
USER_ARGUMENTS = ("--user", USER, "on", f">{FIRST}", "~*", "&*", "+@all")
SHORT, DEFAULT = 2_000, {Redis.SERVER: 15_000, Redis.CLUSTER: 15_000, Redis.SENTINELS: 30_000}
"""Milliseconds of silence after which a server counts as failed: for a short ttl, and by default."""
SENTINEL_FAILOVER_TIMEOUT = 180_000
"""Sentinel's default failover-timeout, in milliseconds."""
DEFAULT_TTL = 30.0


class Event(StrEnum):
    """The event of a row."""

    FAILOVER = "failover"
    KILL = "kill"
    RESTART = "restart"
    UNSEEN = "unseen"
    MIGRATION = "migration"
    ROTATION = "rotation"


ABOUT = {
    Event.FAILOVER: "failover by hand; the old primary lives",
    Event.KILL: "kill -9 of the primary, which comes back without data after the promotion",
    Event.RESTART: "kill -9 of the primary, which comes back without data before a promotion",
    Event.UNSEEN: "failover by hand; the leader cannot reach the sentinels, and the old primary continues to serve",
    Event.MIGRATION: "the slot of the leases moves to another master",
    Event.ROTATION: "the password changes, and every connection of the sidecars is cut",
}
EVENTS = {
    Redis.SERVER: (Event.FAILOVER, Event.KILL, Event.ROTATION),
    Redis.CLUSTER: (Event.FAILOVER, Event.KILL, Event.MIGRATION, Event.ROTATION),
    Redis.SENTINELS: (Event.FAILOVER, Event.KILL, Event.ROTATION),
}
"""The events that are measured by default, for each kind of Redis."""
POSSIBLE = {
    Redis.SERVER: EVENTS[Redis.SERVER],
    Redis.CLUSTER: (*EVENTS[Redis.CLUSTER], Event.RESTART),
    Redis.SENTINELS: (*EVENTS[Redis.SENTINELS], Event.RESTART, Event.UNSEEN),
}


class MovingName(RedisNodes):
    """A primary, its replica, and a name that follows the primary, as ElastiCache's primary endpoint does.

    A proxy stands for the name: a new connection goes to the current primary, and an open connection stays with its
    server. This process promotes the replica `detected` milliseconds after the end of the primary.
    """

    def __init__(self, folder: Path, detected: int) -> None:
        super().__init__(folder, [], [quiet_port(), quiet_port()], USER_ARGUMENTS, stepping=False)
        self._detected = detected / 1000
        self._primary, self._heir = self.nodes
        self._name = Proxy(self._primary.port)

    async def form(self) -> None:
        """Make the second server a replica of the first one."""
        await self._open.enter_async_context(self._name)
        await self.patiently(partial(ask, self._heir, "REPLICAOF", "127.0.0.1", str(self._primary.port)))
        await self.patiently(self.settled)

    def settings(self, task: str) -> dict[str, str]:  # noqa: ARG002 - the name is the same for all tasks
        """Return the variables with the name."""
        return {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(self._name.port)}

    async def primary(self) -> ClockedRedis:
        """Return the server behind the name."""
        return self._primary

    async def settled(self) -> bool:
        """Return true if the primary answers, and its replica is connected."""
        link = str(await ask(self._heir, "INFO", "replication"))
        return "master_link_status:up" in link and (await ask(self._primary, "ROLE"))[0] == "master"

    async def promote(self) -> None:
        """Promote the replica, move the name, and let the old primary replicate the new one."""
        old = await self._move()
        await ask(old, "REPLICAOF", "127.0.0.1", str(self._primary.port))

    async def fail_over(
        self,
        lag: float,  # noqa: ARG002 - the replica never lags here
        seconds: float,
        killed: Callable[[], None] = lambda: None,
    ) -> None:
        """Kill the primary, and promote the replica after the detection time."""
        self._primary.kill()
        killed()
        await asyncio.sleep(self._detected)
        old = await self._move()
        await asyncio.sleep(seconds)
        await old.start_beside()
        await ask(old, "REPLICAOF", "127.0.0.1", str(self._primary.port))

    async def _move(self) -> ClockedRedis:
        await ask(self._heir, "REPLICAOF", "NO", "ONE")
        self._primary, self._heir = self._heir, self._primary
        self._name.target = self._primary.port
        return self._heir


def servers(redis: Redis, folder: Path, ttl: float, tasks: list[str], event: Event) -> RedisNodes:
    """Return the servers of a row, not yet started; with the default ttl they have the default timings."""
    silent = DEFAULT[redis] if ttl >= DEFAULT_TTL else SHORT
    if redis is Redis.SERVER:
        return MovingName(folder, silent)
    if redis is Redis.CLUSTER:
        return ClusterNodes(folder, [], USER_ARGUMENTS, node_timeout=silent, stepping=False)
    timeout = {"failover_timeout": SENTINEL_FAILOVER_TIMEOUT} if ttl >= DEFAULT_TTL else {}
    hidden = tasks if event is Event.UNSEEN else []
    return SentinelNodes(folder, hidden, USER_ARGUMENTS, down_after=silent, stepping=False, **timeout)


async def cause(event: Event, redis: RedisNodes, password: Path, leader: str, keys: list[str]) -> None:
    """Cause an event; returns when the servers have completed it.

    Args:
        event: the event.
        redis: the servers.
        password: the file with the sidecars' password.
        leader: the label of the task that leads.
        keys: the keys of the leases.

    Raises:
        Unsettled: the servers refuse the event.
    """
    match event:
        case Event.FAILOVER:
            await redis.fail_over_by_hand()
        case Event.KILL:
            await redis.fail_over(0.0, 1.0)
        case Event.RESTART:
            await redis.restart_empty(0.5)
        case Event.UNSEEN if isinstance(redis, SentinelNodes):
            async with redis.hidden_from([leader]):
                await redis.fail_over_by_hand()
                await redis.wait_settled(redis.serves_on)
        case Event.MIGRATION if isinstance(redis, ClusterNodes):
            await redis.migrate(keys, 1.0)
        case Event.ROTATION:
            await _rotate(redis, password)
        case _:
            raise Unsettled(f"there is no {event} on this kind of Redis")


def write_password(file: Path, password: str) -> None:
    """Replace the file atomically, as the documentation requires."""
    replacement = file.with_suffix(".new")
    replacement.write_text(password + "\n")
    replacement.replace(file)


async def _rotate(redis: RedisNodes, file: Path) -> None:
    """Make both passwords valid, give the sidecars the new one, remove the old one, and cut the connections."""
    for node in redis.nodes:
        await ask(node, "ACL", "SETUSER", USER, f">{SECOND}")
    write_password(file, SECOND)
    for node in redis.nodes:
        await ask(node, "ACL", "SETUSER", USER, f"<{FIRST}")
        try:
            await ask(node, "CLIENT", "KILL", "USER", USER)
        except RedisError as error:
            raise Unsettled(str(error)) from None
