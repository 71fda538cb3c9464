"""A primary, two replicas and three sentinels for the chaos run.

The servers have no configuration file. An old primary that is started again is therefore a primary without data, and
the sentinels make it a replica. The same happens with a configuration file that names no primary.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import RedisError

from sidecar.server_kind import LATE_DEMOTION
from tests.chaos.ports import quiet_port
from tests.chaos.redis_nodes import RedisNodes, Unsettled, ask
from tests.chaos.server_clock import ClockedRedis
from tests.support.redis_sentinels import MASTER, SentinelServer

SERVERS, SENTINELS, QUORUM = 3, 3, 2
DOWN_AFTER = 2_000
"""Milliseconds after which a silent server counts as failed."""
FAILOVER_TIMEOUT = 6_000
"""Sentinel's failover-timeout, in milliseconds."""


class SentinelNodes(RedisNodes):
    """The servers and the sentinels that name the primary.

    Args:
        folder, tasks, arguments, stepping: as for `RedisNodes`.
        down_after: milliseconds after which a silent server counts as failed.
        failover_timeout: Sentinel's failover-timeout, in milliseconds.
    """

    serves_on = LATE_DEMOTION

    def __init__(
        self,
        folder: Path,
        tasks: list[str],
        arguments: tuple[str, ...] = (),
        *,
        down_after: int = DOWN_AFTER,
        failover_timeout: int = FAILOVER_TIMEOUT,
        stepping: bool = True,
    ) -> None:
        servers = [quiet_port() for _ in range(SERVERS)]
        self.sentinels = [
            SentinelServer(
                folder / f"sentinel-{number}",
                servers[0],
                quorum=QUORUM,
                down_after=down_after,
                failover_timeout=failover_timeout,
                port=quiet_port(),
            )
            for number in range(SENTINELS)
        ]
        self._watching = [sentinel.port for sentinel in self.sentinels]
        super().__init__(folder, tasks, servers, arguments, self._watching, stepping=stepping)

    async def form(self) -> None:
        """Replicate the first server, and start the sentinels once the replicas are connected."""
        first, *replicas = self.nodes
        for replica in replicas:
            await self.patiently(partial(ask, replica, "REPLICAOF", "127.0.0.1", str(first.port)))
        await self.patiently(lambda: self._all_replicate(replicas, first))
        await self.run(*self.sentinels)
        await self.patiently(self.settled)

    def settings(self, task: str) -> dict[str, str]:
        """Return the sidecar's settings, with the ports at which the task finds the sentinels."""
        listed = ",".join(f"127.0.0.1:{self.port_for(task, port)}" for port in self._watching)
        return {"REDIS_SENTINELS": listed, "REDIS_SENTINEL_MASTER": MASTER}

    async def primary(self) -> ClockedRedis:
        """Return the server that a majority of the sentinels names."""
        answers = await asyncio.gather(
            *(ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER) for sentinel in self.sentinels),
            return_exceptions=True,
        )
        named = Counter(int(answer[1]) for answer in answers if isinstance(answer, list))
        port, votes = named.most_common(1)[0] if named else (0, 0)
        if votes < QUORUM:
            raise Unreachable("no majority of the sentinels names a primary")
        return next(node for node in self.nodes if node.port == port)

    async def settled(self) -> bool:
        """Return true if all sentinels know each other and the replicas, which replicate the primary."""
        primary = await self.primary()
        replicas = [node for node in self.nodes if node is not primary]
        answers = await asyncio.gather(*(ask(each, "SENTINEL", "MASTER", MASTER) for each in self.sentinels))
        known = [dict(zip(fields[::2], fields[1::2], strict=True)) for fields in answers]
        return (
            (await ask(primary, "ROLE"))[0] == "master"
            and await self._all_replicate(replicas, primary)
            and all(each["flags"] == "master" and each["port"] == str(primary.port) for each in known)
            and all(int(each["num-other-sentinels"]) == SENTINELS - 1 for each in known)
            and all(int(each["num-slaves"]) == SERVERS - 1 for each in known)
        )

    async def promote(self) -> None:
        """Send SENTINEL FAILOVER: the old primary still runs, and is demoted late."""
        try:
            await ask(self.sentinels[0], "SENTINEL", "FAILOVER", MASTER)
        except RedisError as error:
            raise Unsettled(str(error)) from None

    @asynccontextmanager
    async def hidden_from(self, tasks: list[str]) -> AsyncIterator[None]:
        """Let the tasks reach every server but no sentinel during the block."""
        for task in tasks:
            await self.ways[task].refuse(self._watching)
        try:
            yield
        finally:
            for task in tasks:
                await self.ways[task].accept(self._watching)

    @staticmethod
    async def _all_replicate(replicas: list[ClockedRedis], primary: ClockedRedis) -> bool:
        infos = await asyncio.gather(*(ask(replica, "INFO", "replication") for replica in replicas))
        return all("master_link_status:up" in info and f"master_port:{primary.port}" in info for info in infos)
