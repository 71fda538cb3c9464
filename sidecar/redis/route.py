"""The route to the server: which server a process's connections use, and in which order its addresses are tried."""

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from runtime.connecting import connected_socket
from runtime.lookup import Lookups
from sidecar.redis.optional import EndingRefusals
from sidecar.redis.place import Place

if TYPE_CHECKING:
    from sidecar.redis.connection import RedisConnection

_REMEMBERED = 16
"""Maximum number of failed addresses that are remembered."""


class Route:
    """The route to the server, shared by the connections of a process.

    Args:
        place: where the server is.
        lookups: the name lookups to use.
        limit: seconds for the lookup and for all addresses of one connection.
    """

    def __init__(self, place: Place, lookups: Lookups, limit: float) -> None:
        self.place = place
        self.ending_refusals = EndingRefusals()
        self._lookups = lookups
        self._limit = limit
        self._failed: list[Any] = []  # socket addresses, the most recent failure last
        self._companions: set[RedisConnection] = set()
        self._apart: set[RedisConnection] = set()  # companions that were found at another server
        self._known = asyncio.Event()
        self._host = ""
        self._leader: RedisConnection | None = None  # the leading connection that was identified last
        self._address: Any = None  # the address of the last leading connection

    async def lead(self, host: str, port: int) -> socket.socket:
        """A socket for a leading connection. Recently failed addresses are tried last."""
        return await connected_socket(self._lookups, host, port, limit=self._limit, last=self._failed)

    def leads(self, connection: "RedisConnection") -> None:
        """Let the companions follow a leading connection, which has logged in to the right server."""
        self._host, self._address = str(connection.host), connection.address
        self._known.set()
        for companion in [each for each in self._companions if each.address != self._address]:
            companion.abort()

    async def follow(self) -> tuple[str, socket.socket]:
        """The leading connection's host, and a socket to its server for a companion.

        Waits until that server is known.
        """
        await self._known.wait()
        name, (host, port) = self._host, self._address[:2]
        return name, await connected_socket(self._lookups, host, port, limit=self._limit)

    def joined(self, companion: "RedisConnection") -> None:
        """Register a connected companion. It is aborted if it has another address than the leading connection."""
        self._companions.add(companion)
        if companion.address != self._address:
            companion.abort()

    def identified(self, connection: "RedisConnection", *, leading: bool) -> bool:
        """Compare the servers; returns False if a companion has another server than the leading connection.

        A companion is compared only with an open leading connection: after a restart of the server, a companion may be
        connected again before the leading connection is. When a new leading connection is identified, every companion
        whose result would change is aborted. It then connects again, and is compared again.
        """
        if not leading:
            leader = self._leader
            if leader is None or not leader.writable or not _differ(connection, leader):
                return True
            self._apart.add(connection)
            return False
        self._leader = connection
        for companion in [each for each in self._companions if _differ(each, connection) != (each in self._apart)]:
            companion.abort()
        return True

    def left(self, companion: "RedisConnection") -> None:
        """Remove a companion whose stream has ended."""
        self._companions.discard(companion)
        self._apart.discard(companion)

    def looks_up(self, host: str, port: int) -> bool:
        """Whether a lookup of the name is under way."""
        return self._lookups.pending(host, port)

    def may_have_moved(self, host: str, port: int) -> None:
        """Discard earlier lookups, because the name's addresses or the server's place may have changed."""
        self._lookups.forget(host, port)
        self.place.doubt()

    def failed(self, host: str, port: int, address: Any) -> None:
        """Record that the server at `address` failed, so the name's other addresses are tried first.

        If `address` is None, no server was reached. Then a lookup under way stays valid, and so does the server's
        place: a lookup may take longer than one attempt.
        """
        if address is None:
            if not self.looks_up(host, port):
                self.place.doubt()
            return
        self.may_have_moved(host, port)
        self._failed = [*(each for each in self._failed if each != address), address][-_REMEMBERED:]


def _differ(one: "RedisConnection", other: "RedisConnection") -> bool:
    """Whether two connections are known to have different servers."""
    return None not in (one.server, other.server) and one.server != other.server
