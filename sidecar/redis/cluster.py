"""The node of a cluster that owns the leases' hash slot.

Each node of the cluster can name the owner of a slot (CLUSTER SLOTS). A node that is not the owner refuses a call with
the error MOVED. This error also names the owner, and proves that nothing was executed. A node that failed is asked
last. Until the failover has ended, the other nodes still name the failed node as the owner, and connections to the
owner fail.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ClusterDownError, NoPermissionError, ResponseError

from sidecar.redis.connection import RedisConnection
from sidecar.redis.failures import OtherShape
from sidecar.redis.login import log_in
from sidecar.redis.place import shown
from sidecar.server_kind import Node

TRIES = 3
"""Maximum number of nodes that are asked, in turn, for one connection."""
_UNKNOWN = "?"
"""Host of a node without a known host name, in the answers of a cluster that prefers host names."""
REMEMBERED = 32
"""Maximum number of nodes whose addresses are kept."""


class ClusterPlace:
    """Follows the owner of a slot.

    Args:
        seed: the node that the settings name; the name may have many addresses.
        slot: the hash slot of the leases.
        direct: makes a connection to a node, apart from the connections of the election.
        limit: seconds for one connection of the election, including the query for the slot's owner.
    """

    redirects = True

    def __init__(self, seed: Node, slot: int, direct: Callable[[Node], RedisConnection], limit: float) -> None:
        self._seed = seed
        self._slot = slot
        self._direct = direct
        self._limit = limit
        self._owner: Node | None = None
        self._found: Node | None = None
        self._nodes: list[Node] = []  # nodes of the cluster; recently failed nodes come last

    async def find(self) -> Node:
        """The owner. If the owner is unknown, the nodes are asked.

        Raises:
            ClusterDownError: no node owns the slot.
            Exception: no node can be asked.
        """
        self._found = self._owner = self._owner or await self._ask()
        return self._found

    async def confirm(self, connection: RedisConnection) -> None:
        """Read the list of the nodes.

        Ownership is not checked here: a node that is not the owner refuses the first call with MOVED.
        """
        async with asyncio.timeout(self._limit / (TRIES + 1)):
            await self._slots(connection, (str(connection.host), int(connection.port)))
        self._owner = self._found

    assured = True

    async def assure(self) -> None:
        """Do nothing: a node that is not the owner refuses the call with MOVED."""

    def named(self, node: Node) -> str:
        """The node's address and who named it, for people; '' for the node of the settings."""
        return "" if node == self._seed else f"{shown(node)}, which the cluster names"

    def doubt(self) -> None:
        """Forget the owner, which may have failed. The next query asks the other nodes first."""
        if self._found is not None:
            self._put_last(self._found)
        self._owner = None

    def moved(self, node: Node) -> None:
        """Use the owner that a node named. If its host is `?`, the nodes are asked for its address."""
        unknown = node[0] == _UNKNOWN and bool(self._nodes)
        self._owner = None if unknown else self._named(node, self._found or self._seed)

    def beside(self, node: Node) -> RedisConnection:
        """A connection to the node that the slot is migrating to."""
        here = self._found or self._seed
        others = [each for each in self._nodes if each[1] == node[1] and each != here]
        if node[0] == _UNKNOWN and len(others) == 1:
            return self._direct(others[0])
        return self._direct(self._named(node, here))

    async def elsewhere(self) -> bool:
        """Return False: a node that has lost the slot refuses calls with MOVED."""
        return False

    async def _ask(self) -> Node:
        candidates = [*self._nodes, self._seed] if self._seed not in self._nodes else self._nodes
        tried: list[Node] = candidates[:TRIES]
        if self._seed not in tried:
            tried[-1] = self._seed  # the seed may be the only node that still answers
        problem: Exception = ClusterDownError("no node of the cluster can be asked")
        for node in tried:
            connection = self._direct(node)
            try:
                async with asyncio.timeout(self._limit / (len(tried) + 1)):
                    await log_in(connection)
                    return await self._slots(connection, node)
            except Exception as error:  # noqa: BLE001 - a malformed answer can make redis-py raise any error
                problem = error
                self._put_last(node)
            finally:
                await connection.disconnect(nowait=True)
        raise problem

    async def _slots(self, connection: RedisConnection, asked: Node) -> Node:
        """The owner of the slot, from the answer of a node. A node may leave its own host empty."""
        if connection.optional.refusal("CLUSTER SLOTS") is not None:
            return asked
        await connection.send_command("CLUSTER", "SLOTS")
        try:
            with connection.optional.reading("CLUSTER SLOTS"):
                answer: Any = await connection.read_response()
        except ResponseError as error:
            if type(error) in (NoPermissionError, ResponseError):
                return asked  # this node refuses CLUSTER SLOTS; MOVED will name the owner
            raise
        try:
            ranges = [(int(first), int(last), [_node(each) for each in nodes]) for first, last, *nodes in answer]
        except (TypeError, ValueError, IndexError) as error:
            raise OtherShape("the answer to CLUSTER SLOTS does not have the expected shape") from error
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
        return (asked[0] if node[0] in ("", _UNKNOWN) else node[0]), node[1]


def _node(entry: Sequence[Any]) -> Node:
    """A node in the answer to CLUSTER SLOTS. An empty host means the host that was asked.

    If a cluster of Redis 7 prefers host names, a node without a host name has the host `?`. Its IP address follows.
    """
    host, port = entry[0], int(entry[1])
    if host == _UNKNOWN and len(entry) > 3 and isinstance(entry[3], list):
        host = dict(zip(entry[3][::2], entry[3][1::2], strict=False)).get("ip")
    return ("" if host in (None, _UNKNOWN) else str(host)), port
