"""A real Redis Cluster on loopback, with short timings, and an operator's changes to the cluster."""

import random
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.connection import Connection
from redis.exceptions import RedisError

from ops.local.servers import RedisServer
from sidecar.server_kind import SLOTS, slot_of
from tests.support.ports import claim
from tests.support.waiting import eventually

BUS = 10_000
"""Difference between the port of a node's cluster bus and the port of the node itself."""
NODE_TIMEOUT = 1_000
"""Milliseconds after which a silent node counts as failed."""


def cluster_port() -> int:
    """A free port with a free bus port, both below the range of the ephemeral ports."""
    drawn = iter(lambda: random.randrange(11_000, 22_000), None)
    return next(port for port in drawn if claim((port, port + BUS)))


def send_command(node: RedisServer, *words: str) -> Any:
    """A node's answer to a command, unchanged; an error is returned, not raised."""
    connection = Connection(port=node.port, decode_responses=True, protocol=2)  # type: ignore[no-untyped-call]
    try:
        connection.send_command(*words)  # type: ignore[no-untyped-call]
        return connection.read_response()
    except RedisError as error:
        return error
    finally:
        connection.disconnect()  # type: ignore[no-untyped-call]


class RedisCluster:
    """A cluster. The first `masters` nodes share the slots; each other node replicates one of them, in turn."""

    def __init__(self, nodes: list[RedisServer], masters: int) -> None:
        self.nodes = nodes
        self.masters = masters

    async def form(self) -> None:
        """Join the nodes, share out the slots, and start the replicas."""
        first, *others = self.nodes
        for node in others:
            send_command(node, "CLUSTER", "MEET", "127.0.0.1", str(first.port))
        share = SLOTS // self.masters
        for number, node in enumerate(self.nodes[: self.masters]):
            last = SLOTS if number == self.masters - 1 else (number + 1) * share
            send_command(node, "CLUSTER", "ADDSLOTS", *map(str, range(number * share, last)))
        await eventually(lambda: all(len(self._known(node)) == len(self.nodes) for node in self.nodes))
        for number, replica in enumerate(self.nodes[self.masters :]):
            send_command(
                replica, "CLUSTER", "REPLICATE", str(send_command(self.nodes[number % self.masters], "CLUSTER", "MYID"))
            )
        await eventually(
            lambda: all("cluster_state:ok" in str(send_command(node, "CLUSTER", "INFO")) for node in self.nodes)
        )
        await eventually(lambda: all(map(self.replicates, self.nodes[self.masters :])))

    def replicates(self, node: RedisServer) -> bool:
        """Return true if a replica reports that it is connected to its primary."""
        return "master_link_status:up" in str(send_command(node, "INFO", "replication"))

    def owner(self, key: str, *, asked: RedisServer | None = None) -> RedisServer | None:
        """The node that serves the slot of a key, as reported by the node `asked` (default: the first node)."""
        for first, last, (_, port, *_), *_ in send_command(asked or self.nodes[0], "CLUSTER", "SLOTS"):
            if first <= slot_of(key) <= last:
                return next(node for node in self.nodes if node.port == port)
        return None

    def other(self, node: RedisServer) -> RedisServer:
        """A master other than this node."""
        return next(each for each in self.nodes[: self.masters] if each is not node)

    def begin_migration(self, key: str, source: RedisServer, target: RedisServer) -> None:
        """Begin to move the slot of a key from one node to another."""
        slot = str(slot_of(key))
        send_command(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", str(send_command(source, "CLUSTER", "MYID")))
        send_command(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", str(send_command(target, "CLUSTER", "MYID")))

    def migrate(self, *keys: str, source: RedisServer, target: RedisServer) -> None:
        """Move keys of the slot that is being moved."""
        send_command(source, "MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", "REPLACE", "KEYS", *keys)

    def end_migration(self, key: str, target: RedisServer) -> None:
        """Complete the move of the slot."""
        for node in (target, *self.nodes[: self.masters]):
            send_command(
                node, "CLUSTER", "SETSLOT", str(slot_of(key)), "NODE", str(send_command(target, "CLUSTER", "MYID"))
            )

    def move(self, key: str, target: RedisServer) -> None:
        """Move the slot of a key, with all its keys, to another node."""
        source = self.owner(key)
        assert source is not None
        self.begin_migration(key, source, target)
        if keys := send_command(source, "CLUSTER", "GETKEYSINSLOT", str(slot_of(key)), "100"):
            self.migrate(*keys, source=source, target=target)
        self.end_migration(key, target)

    def _known(self, node: RedisServer) -> list[str]:
        return str(send_command(node, "CLUSTER", "NODES")).strip().splitlines()


@asynccontextmanager
async def redis_cluster(
    folder: Path, *, masters: int = 2, replicas: int = 0, binary: Path | None = None, node_timeout: int = NODE_TIMEOUT
) -> AsyncIterator[RedisCluster]:
    """A cluster that serves every slot."""
    arguments = (
        "--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout), "--repl-diskless-sync", "yes",
        "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--cluster-replica-validity-factor", "0",
    )  # fmt: skip
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                RedisServer(folder / f"node{number}", port=cluster_port(), binary=binary, arguments=arguments)
            )
            for number in range(masters + replicas)
        ]
        cluster = RedisCluster(nodes, masters)
        await cluster.form()
        yield cluster
