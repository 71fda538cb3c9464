"""The node of a cluster that owns the leases' hash slot.

The nodes say who owns the slot. MOVED says so too, and proves that nothing was executed. A node that fails is asked
last: until the failover has ended, all nodes name the one that failed.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ClusterDownError, InvalidResponse, NoPermissionError, RedisError, ResponseError

from sidecar.redis.connection import RedisConnection, log_in
from sidecar.server_kind import Node

TRIES = 3
"""Nodes that are asked for one connection, one after the other."""
REMEMBERED = 32
"""Nodes of which the addresses are kept."""


class ClusterPlace:
    """Follows the owner of a slot.

    Args:
        seed: the node that the settings name; the name may have many addresses.
        slot: the hash slot of the leases.
        direct: makes a connection to a node, apart from the connections of the election.
        limit: seconds for one connection of the election, with the question who owns the slot.
    """

    redirects = True

    def __init__(self, seed: Node, slot: int, direct: Callable[[Node], RedisConnection], limit: float) -> None:
        self._seed = seed
        self._slot = slot
        self._direct = direct
        self._share = limit / (TRIES + 1)
        self._owner: Node | None = None
        self._found: Node | None = None
        self._nodes: list[Node] = []  # of the cluster, those that failed lately last

    async def find(self) -> Node:
        """The owner; the nodes are asked where it is not known.

        Raises:
            ClusterDownError: no node owns the slot.
            RedisError, OSError: no node can be asked.
        """
        self._found = self._owner or await self._ask()
        return self._found

    async def confirm(self, connection: RedisConnection) -> None:
        """Learn the other nodes; a node that is not the owner says so at the first call."""
        async with asyncio.timeout(self._share):
            await self._slots(connection, (str(connection.host), int(connection.port)))
        self._owner = self._found

    assured = True

    async def assure(self) -> None:
        """A node that is not the owner says so."""

    def doubt(self) -> None:
        """The owner failed: ask the other nodes first."""
        if self._found is not None:
            self._put_last(self._found)
        self._owner = None

    def moved(self, node: Node) -> None:
        """A node named the owner."""
        self._owner = self._named(node, self._found or self._seed)

    def beside(self, node: Node) -> RedisConnection:
        """A connection to the node that the slot is migrating to."""
        return self._direct(self._named(node, self._found or self._seed))

    async def elsewhere(self) -> bool:
        """A node says by itself that it is not the owner any more."""
        return False

    async def _ask(self) -> Node:
        candidates = [*self._nodes, self._seed] if self._seed not in self._nodes else self._nodes
        tried: list[Node] = candidates[:TRIES]
        if self._seed not in tried:
            tried[-1] = self._seed  # it may be the only one that is left
        problem: Exception = ClusterDownError("no node of the cluster can be asked")
        for node in tried:
            connection = self._direct(node)
            try:
                async with asyncio.timeout(self._share):
                    await log_in(connection)
                    return await self._slots(connection, node)
            except (RedisError, OSError) as error:
                problem = error
                self._put_last(node)
            finally:
                await connection.disconnect(nowait=True)
        raise problem

    async def _slots(self, connection: RedisConnection, asked: Node) -> Node:
        """The owner of the slot, from the answer of a node, which says its own host by no name."""
        await connection.send_command("CLUSTER", "SLOTS")
        try:
            answer: Any = await connection.read_response()
        except ResponseError as error:
            if type(error) in (NoPermissionError, ResponseError):
                return asked  # which cannot say who owns the slot; MOVED does
            raise
        try:
            ranges = [(int(first), int(last), [_node(each) for each in nodes]) for first, last, *nodes in answer]
        except (TypeError, ValueError, IndexError) as error:
            raise InvalidResponse("the answer to CLUSTER SLOTS has not the shape it should have") from error
        nodes = dict.fromkeys(self._named(node, asked) for _, _, nodes in ranges for node in nodes)
        kept = [node for node in self._nodes if node in nodes]
        self._nodes = [*(node for node in nodes if node not in kept), *kept][:REMEMBERED]
        for first, last, owners in ranges:
            if first <= self._slot <= last and owners:
                return self._named(owners[0], asked)
        raise ClusterDownError("Hash slot not served: no node of the cluster owns it")

    def _put_last(self, node: Node) -> None:
        if node in self._nodes:
            self._nodes = [*(each for each in self._nodes if each != node), node]

    @staticmethod
    def _named(node: Node, asked: Node) -> Node:
        return (node[0] or asked[0]), node[1]


def _node(entry: Sequence[Any]) -> Node:
    """A node of CLUSTER SLOTS; '' for the host stands for the host that was asked."""
    host, port = entry[0], int(entry[1])
    return ("" if host in (None, "", "?") else str(host)), port
