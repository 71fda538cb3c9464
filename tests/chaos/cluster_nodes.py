"""A cluster for the chaos run: two masters that can own the leases' slot, a replica of each, and a third master.

The third master is needed for a majority. The slot migrates between the first two masters or the replicas that replaced
them.
"""

import asyncio
from pathlib import Path
from typing import NamedTuple

from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import RedisError

from sidecar.redis.store import fence_of
from sidecar.server_kind import slot_of
from tests.chaos.redis_nodes import RedisNodes, Unsettled, ask
from tests.chaos.server_clock import ClockedRedis
from tests.support.redis_cluster import RedisCluster, cluster_port

MASTERS, REPLICAS = 3, 2
NODE_TIMEOUT = 1_000
"""Milliseconds after which a silent node counts as failed."""


class _Own(NamedTuple):
    """The line about a node in its own answer to CLUSTER NODES. The node with the larger epoch has the newer state."""

    epoch: int
    node_id: str
    is_master: bool
    owns_slot: bool


class ClusterNodes(RedisNodes):
    """The nodes of the cluster.

    Args:
        folder, tasks, arguments, stepping: as for `RedisNodes`.
        node_timeout: milliseconds after which a silent node counts as failed.
    """

    lease_key = "{portfolio}:{name}:leader"

    def __init__(
        self,
        folder: Path,
        tasks: list[str],
        arguments: tuple[str, ...] = (),
        *,
        node_timeout: int = NODE_TIMEOUT,
        stepping: bool = True,
    ) -> None:
        ports = [cluster_port() for _ in range(MASTERS + REPLICAS)]
        of_cluster = (
            "--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout),
            "--cluster-replica-validity-factor", "0", "--cluster-require-full-coverage", "no",
        )  # fmt: skip
        super().__init__(folder, tasks, ports, (*of_cluster, *arguments), stepping=stepping)
        self._slot = slot_of(self.lease_key)

    async def form(self) -> None:
        """Form a cluster: introduce the nodes, distribute the slots, and start the replication."""
        await RedisCluster(list(self.nodes), MASTERS).form()

    def settings(self, task: str) -> dict[str, str]:
        """Return the sidecar's settings. The nodes take turns as the first node that a task connects to."""
        seed = self.nodes[int(task.removeprefix("task")) % len(self.nodes)]
        port = self.port_for(task, seed.port)
        return {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port), "REDIS_CLUSTER": "true"}

    async def primary(self) -> ClockedRedis:
        """Return the newest owner of the slot."""
        answers = await asyncio.gather(*map(self._own, self.nodes), return_exceptions=True)
        owners = [(own.epoch, number) for number, own in enumerate(answers) if isinstance(own, _Own) and own.owns_slot]
        if not owners:
            raise Unreachable("no node owns the slot of the leases")
        return self.nodes[max(owners)[1]]

    async def settled(self) -> bool:
        """Return true if all nodes run, three are masters, the replicas are connected, and one node owns the slot."""
        owns = await asyncio.gather(*map(self._own, self.nodes))
        states = await asyncio.gather(*(ask(node, "CLUSTER", "INFO") for node in self.nodes))
        links = await asyncio.gather(
            *(ask(node, "INFO", "replication") for node, own in zip(self.nodes, owns, strict=True) if not own.is_master)
        )
        return (
            sum(own.is_master for own in owns) == MASTERS
            and sum(own.owns_slot for own in owns) == 1
            and all("cluster_state:ok" in state for state in states)
            and all("master_link_status:up" in link for link in links)
        )

    async def promote(self) -> None:
        """Send CLUSTER FAILOVER to the replica of the slot's owner."""
        owner = await self._own(await self.primary())
        for node in self.nodes:
            if owner.node_id in await self._line(node, "myself,slave"):
                try:
                    await ask(node, "CLUSTER", "FAILOVER")
                except RedisError as error:
                    raise Unsettled(str(error)) from None
                return
        raise Unsettled("the owner of the slot has no replica")

    async def migrate(self, keys: list[str], seconds: float) -> None:
        """Move the slot to the other master within `seconds`, one lease at a time, each together with its fence."""
        source = await self.primary()
        others = [node for node in self._group(1 - self._group_of(source)) if (await self._own(node)).is_master]
        if not others:
            raise Unsettled("the other master does not run")
        target, slot = others[0], str(self._slot)
        target_id, source_id = (await self._own(target)).node_id, (await self._own(source)).node_id
        await ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        await ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        for key in keys:
            await asyncio.sleep(seconds / len(keys))
            await self._move_keys(source, target, [key, fence_of(key)])
        rest = await ask(source, "CLUSTER", "GETKEYSINSLOT", slot, "100")
        if rest:
            await self._move_keys(source, target, rest)
        for node in (target, source, *self.nodes):
            if (await self._own(node)).is_master:
                await ask(node, "CLUSTER", "SETSLOT", slot, "NODE", target_id)

    async def _move_keys(self, source: ClockedRedis, target: ClockedRedis, keys: list[str]) -> None:
        await ask(source, "MIGRATE", "127.0.0.1", str(target.port), "", "0", "1500", "REPLACE", "KEYS", *keys)

    def _group(self, number: int) -> list[ClockedRedis]:
        return [self.nodes[number], self.nodes[MASTERS + number]]

    def _group_of(self, node: ClockedRedis) -> int:
        return int(node in self._group(1))

    async def _line(self, node: ClockedRedis, mark: str) -> str:
        """Return the line of CLUSTER NODES that contains the mark; '' if no line does, or the node does not answer."""
        try:
            answer = str(await ask(node, "CLUSTER", "NODES"))
        except (RedisError, OSError):
            return ""
        return next((line for line in answer.splitlines() if mark in line), "")

    async def _own(self, node: ClockedRedis) -> _Own:
        line = next(line for line in str(await ask(node, "CLUSTER", "NODES")).splitlines() if "myself" in line)
        node_id, _, flags, _, _, _, epoch, _, *slots = line.split()
        ranges = [part.partition("-") for part in slots if not part.startswith("[")]
        owns = any(int(first) <= self._slot <= int(last or first) for first, _, last in ranges)
        is_master = "master" in flags.split(",")
        return _Own(int(epoch), node_id, is_master, owns and is_master)
