"""Connections to Redis: made without redis-py's own retries and limits, over all addresses, and aware of their end.

redis-py resolves a name and tries its addresses by `asyncio.open_connection`, which waits for each in turn, and notices
that the server has closed a connection only when it next reads. Here a connection is made by `runtime.connecting`, and
its stream tells when it ends. Nothing reads the socket for that beside whoever waits for a reply.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any, cast

from redis.asyncio.connection import (
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from runtime.connecting import connected_socket
from runtime.lookup import Lookups
from sidecar.redis.failures import KINDS
from sidecar.settings import RedisAddress, SettingsError

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""Options of a URL that name a file."""
_NO_HANDSHAKE = "no answer to the TLS handshake; the server may not speak TLS: redis:// in REDIS_URL"
"""What a server that speaks no TLS does as a rule: it waits for the end of what it takes for a command."""
_REMEMBERED = 16
"""Addresses of servers that failed, of which the order is kept."""


class Route:
    """The way to one host, shared by the connections of a process.

    Args:
        lookups: where the name is looked up.
        limit: seconds for the lookup and for all addresses of one connection.
    """

    def __init__(self, lookups: Lookups, limit: float) -> None:
        self._lookups = lookups
        self._limit = limit
        self._failed: list[Any] = []  # socket addresses, the one that failed last at the end
        self._companions: set[RedisConnection] = set()
        self._known = asyncio.Event()
        self._address: Any = None  # to which the leading connection was made last

    async def lead(self, host: str, port: int) -> socket.socket:
        """A socket for a leading connection: to whichever address answers, those that failed lately last."""
        connected = await connected_socket(self._lookups, host, port, limit=self._limit, last=self._failed)
        self._address = connected.getpeername()
        self._known.set()
        for companion in [each for each in self._companions if each.address != self._address]:
            companion.abort()
        return connected

    async def follow(self) -> socket.socket:
        """A socket for a companion: to the server of the leading connection, once that was made."""
        await self._known.wait()
        host, port = self._address[:2]
        return await connected_socket(self._lookups, host, port, limit=self._limit)

    def joined(self, companion: "RedisConnection") -> None:
        """The companion is connected; it is aborted where the leading connection has another server."""
        self._companions.add(companion)
        if companion.address != self._address:
            companion.abort()

    def left(self, companion: "RedisConnection") -> None:
        """The companion's stream has ended."""
        self._companions.discard(companion)

    def looks_up(self, host: str, port: int) -> bool:
        """Whether a lookup of the name is under way."""
        return self._lookups.pending(host, port)

    def may_have_moved(self, host: str, port: int) -> None:
        """What the name stands for may have changed: use no lookup from before."""
        self._lookups.forget(host, port)

    def failed(self, host: str, port: int, address: Any) -> None:
        """The server at an address failed: look the name up again, and try its other addresses first."""
        self._lookups.forget(host, port)
        self._failed = [*(each for each in self._failed if each != address), address][-_REMEMBERED:]


class _Stream(asyncio.StreamReader):
    """A reader that reports the end of the stream, however it comes."""

    def __init__(self, ended: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._report_end = ended

    def feed_eof(self) -> None:
        super().feed_eof()
        self._report_end()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self._report_end()


class RedisConnection(Connection):
    """A connection of redis-py that knows when its stream has ended.

    Args:
        route: the way to the host, shared with the other connections of the process.
        leading: whether this connection chooses the server; a companion follows it.
        options: redis-py's.
    """

    def __init__(self, *, route: Route, leading: bool, **options: Any) -> None:
        super().__init__(**options)
        self._route = route
        self._leading = leading
        self.ended = False
        """Whether the stream has ended, whoever closed it."""
        self.when_ended: Callable[[], None] = _ignore
        """Called when the stream has ended."""
        self.address: Any = None
        """The socket address of the server, once connected."""
        self._has_transport = False  # stays true when redis-py has dropped the stream

    def awaited(self) -> str | None:
        """What the connection waits for, where the server's answer is not what is missing: a line for people."""
        hangs = self._leading and self.address is None and self._route.looks_up(self.host, self.port)
        return f"the lookup of the name {self.host} hangs" if hangs else None

    def distrust(self) -> None:
        """Let the next connection look the name up again, and try the name's other addresses first."""
        if self.address is not None:
            self._route.failed(self.host, self.port, self.address)

    def abort(self) -> None:
        """End the stream at once."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        reader = _Stream(self._stream_ended, loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport = await self._transport(lambda: protocol)
        self._has_transport = True
        self._reader, self._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)
        if not self._leading:
            self._route.joined(self)

    async def _transport(self, protocol: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        connected = await (self._route.lead(self.host, self.port) if self._leading else self._route.follow())
        self.address = connected.getpeername()
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in cast("dict[int, int]", self.socket_keepalive_options).items():
            connected.setsockopt(socket.SOL_TCP, option, value)
        tls = self._connection_arguments().get("ssl")
        transport, _ = await asyncio.get_running_loop().create_connection(
            protocol, sock=connected, ssl=tls, server_hostname=self.host if tls is not None else None
        )
        return transport

    def _stream_ended(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._route.left(self)
        if self._leading and self.is_connected:  # else we closed it
            self._route.may_have_moved(self.host, self.port)
        self.when_ended()


class _ByTls(RedisConnection, SSLConnection):
    """The certificate has to be for the name, whichever of its addresses answers."""

    def awaited(self) -> str | None:
        in_handshake = self.address is not None and not self._has_transport
        return _NO_HANDSHAKE if in_handshake else super().awaited()


class _ByUnixSocket(RedisConnection, UnixDomainSocketConnection):
    async def _transport(self, protocol: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        transport, _ = await asyncio.get_running_loop().create_unix_connection(protocol, path=self.path)
        return transport

    def awaited(self) -> str | None:
        return None

    def _host_error(self) -> str:
        return str(self.path)


_OURS: dict[Any, type[RedisConnection]] = {
    Connection: RedisConnection,
    SSLConnection: _ByTls,
    UnixDomainSocketConnection: _ByUnixSocket,
}


class Connector:
    """Makes connections to one Redis, unconnected yet, with redis-py's own retries, limits and greetings turned off.

    Args:
        address: where Redis is.
        lookups: name lookups shared with others; its own unless given.
        limit: seconds for the lookup and for all addresses of one connection.

    Raises:
        SettingsError: the URL has an option whose value redis-py cannot use.
    """

    def __init__(self, address: RedisAddress, *, lookups: Lookups | None = None, limit: float = 5.0) -> None:
        given: dict[str, Any] = {"host": address.host, "port": address.port}
        if address.url is not None:
            try:
                given = dict(parse_url(address.url))
            except ValueError:
                raise SettingsError("REDIS_URL: the value of an option cannot be used") from None
        self._make = _OURS[given.pop("connection_class", Connection)]
        if address.username is not None:
            given["username"] = address.username
        if address.password is not None:
            given["password"] = address.password
        given |= {"socket_timeout": None, "socket_connect_timeout": None, "health_check_interval": 0, "protocol": 2}
        given |= {"decode_responses": True, "encoding_errors": "replace", "driver_info": None}
        given |= {"retry_on_timeout": False}
        self._options = given
        self._route = Route(lookups or Lookups(), limit)
        try:
            made = self()
            if isinstance(made, SSLConnection):
                made.ssl_context.get()  # reads the files
        except (TypeError, ValueError, OSError, RedisError):  # what they say may hold secrets
            lost = [name for name in _FILES if name in given and not os.access(given[name], os.R_OK)]
            what = (
                f"the file of the option {lost[0]!r} cannot be read"
                if lost
                else "the value of an option cannot be used"
            )
            raise SettingsError(f"REDIS_URL: {what}") from None

    def __call__(self) -> RedisConnection:
        """A leading connection: it looks the name up, and chooses among its addresses."""
        return self._make(route=self._route, leading=True, **self._options)

    def companion(self) -> RedisConnection:
        """A connection to the server that the leading connection has, ended once that is another one."""
        return self._make(route=self._route, leading=False, **self._options)


async def log_in(connection: RedisConnection) -> None:
    """Connect; what it raises repeats nothing of a password.

    A cancellation gets a note of what it interrupted: the TimeoutError of the caller's limit has it as its cause.
    """
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
    except asyncio.CancelledError as cancelled:
        if (awaited := connection.awaited()) is not None:
            cancelled.add_note(awaited)
        raise
    except (Disconnected, OSError):
        raise
    except Exception as error:
        if type(error) in KINDS:
            raise
        kind = RedisError if isinstance(error, ResponseError) else InvalidResponse
        raise kind("the server refuses AUTH or SELECT") from None  # its words may repeat the password


def _ignore() -> None:
    """Nobody wants to know."""
