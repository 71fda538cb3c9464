"""The way to the server: which one the connections of a process go to, and which of its addresses are tried first."""

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from runtime.connecting import connected_socket
from runtime.lookup import Lookups
from sidecar.redis.place import Place

if TYPE_CHECKING:
    from sidecar.redis.connection import RedisConnection

_REMEMBERED = 16
"""Addresses of servers that failed, of which the order is kept."""


class Route:
    """The way to the server, shared by the connections of a process.

    Args:
        place: where the server is.
        lookups: where the name is looked up.
        limit: seconds for the lookup and for all addresses of one connection.
    """

    def __init__(self, place: Place, lookups: Lookups, limit: float) -> None:
        self.place = place
        self._lookups = lookups
        self._limit = limit
        self._failed: list[Any] = []  # socket addresses, the one that failed last at the end
        self._companions: set[RedisConnection] = set()
        self._known = asyncio.Event()
        self._host = ""
        self._server: str | None = None  # of the leading connection, as `RedisConnection.server`
        self._address: Any = None  # to which the leading connection was made last

    async def lead(self, host: str, port: int) -> socket.socket:
        """A socket for a leading connection: to whichever address answers, those that failed lately last."""
        connected = await connected_socket(self._lookups, host, port, limit=self._limit, last=self._failed)
        self._host, self._address = host, connected.getpeername()
        self._known.set()
        for companion in [each for each in self._companions if each.address != self._address]:
            companion.abort()
        return connected

    async def follow(self) -> tuple[str, socket.socket]:
        """A socket for a companion, and its host: to the server of the leading connection, once that was made."""
        await self._known.wait()
        name, (host, port) = self._host, self._address[:2]
        return name, await connected_socket(self._lookups, host, port, limit=self._limit)

    def joined(self, companion: "RedisConnection") -> None:
        """The companion is connected; it is aborted where the leading connection has another server."""
        self._companions.add(companion)
        if companion.address != self._address:
            companion.abort()

    def identified(self, connection: "RedisConnection", *, leading: bool) -> bool:
        """A connection knows its server. Returns whether a companion has that of the leading connection, if known."""
        if not leading:
            return None in (self._server, connection.server) or self._server == connection.server
        self._server = connection.server
        for companion in [each for each in self._companions if each.server not in (None, self._server)]:
            companion.abort()
        return True

    def left(self, companion: "RedisConnection") -> None:
        """The companion's stream has ended."""
        self._companions.discard(companion)

    def looks_up(self, host: str, port: int) -> bool:
        """Whether a lookup of the name is under way."""
        return self._lookups.pending(host, port)

    def may_have_moved(self, host: str, port: int) -> None:
        """What the name stands for may have changed, or where the server is: use nothing from before."""
        self._lookups.forget(host, port)
        self.place.doubt()

    def failed(self, host: str, port: int, address: Any) -> None:
        """The server failed: find it again; at an `address`, try the other addresses of its name first."""
        self.may_have_moved(host, port)
        if address is None:
            return
        self._failed = [*(each for each in self._failed if each != address), address][-_REMEMBERED:]
