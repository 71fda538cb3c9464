"""Connections to Redis that try all addresses, notice their end at once, and do not retry by themselves.

redis-py connects by `asyncio.open_connection`, which waits for each address in turn. redis-py notices that the server
has closed a connection only at the next read. Here `runtime.connecting` makes the connection, and the stream calls a
function when the connection ends. Only the caller that waits for a reply reads from the stream. A `Place` determines
where the server is.
"""

import asyncio
import re
import select
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

from redis.asyncio.connection import (
    Connection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.exceptions import ConnectionError as Disconnected

from runtime.lookup import Lookups
from sidecar.redis.failures import note
from sidecar.redis.login import login_of
from sidecar.redis.optional import OptionalCommands
from sidecar.redis.place import FixedPlace, Place
from sidecar.redis.route import Route
from sidecar.server_kind import Cluster, Node, Sentinels, ServerKind
from sidecar.settings import RedisAddress

if TYPE_CHECKING:
    from sidecar.redis.credentials import Login
    from sidecar.redis.tls import Tls

_NO_HANDSHAKE = "no answer to the TLS handshake; if the server does not speak TLS, use {instead}"
"""Error for a server that probably does not speak TLS.

Such a server takes the handshake for the beginning of a command, and waits for the rest.
"""
_EXPECTS_TLS = "; a server that expects TLS also does this: set REDIS_TLS=true, or rediss:// in REDIS_URL"
"""Addition to the error of a connection without TLS that ended before anything was received."""
_PEER_CLOSED = getattr(select, "POLLRDHUP", 0)
"""The event of a socket whose peer has closed the connection; Linux only. POLLHUP and POLLERR are always reported."""


class _Stream(asyncio.StreamReader):
    """A reader that reports and explains the end of the stream, whatever the cause."""

    def __init__(
        self,
        ended: Callable[[], None],
        explained: Callable[[Exception | None], Exception | None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(loop=loop)
        self._report_end = ended
        self._explained = explained
        self._is_heard = False

    def feed_data(self, data: Any) -> None:
        self._is_heard = True
        super().feed_data(data)

    def feed_eof(self) -> None:
        if not self._is_heard and (error := self._explained(None)) is not None:
            super().set_exception(error)
        super().feed_eof()
        self._report_end()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception((None if self._is_heard else self._explained(exc)) or exc)
        self._report_end()


class RedisConnection(Connection):
    """A connection of redis-py that notices the end of its stream at once.

    Args:
        route: the route to the server, shared with the other connections of the process.
        leading: whether this connection chooses the server. The other connections, its companions, use the same server.
        options: arguments of redis-py's connection.
    """

    def __init__(self, *, route: Route, leading: bool, **options: Any) -> None:
        super().__init__(**options)
        self._route = route
        self._leading = leading
        self.optional = OptionalCommands(route.ending_refusals)
        """The commands that the election can do without."""
        self.ended = False
        """Whether the stream has ended, on either side."""
        self.when_ended: Callable[[], None] = _ignore
        """Called when the stream has ended."""
        self.address: Any = None
        """The socket address of the server, once connected."""
        self.server: str | None = None
        """The run id of the server; None while unknown, or where INFO is refused."""
        self.named = ""
        """The server's address and who named it, for people; '' if the settings name it, or while it is unknown."""
        self.logging_in = False
        """Whether the login has begun, and has not succeeded yet."""
        self._has_transport = False  # remains true after redis-py has dropped the stream

    def awaited(self) -> str | None:
        """A line for people if the connection waits for a name lookup or for a TLS handshake; otherwise None."""
        looks_up = self._leading and self.address is None and self._route.looks_up(self.host, self.port)
        return f"the lookup of the name {self.host} gave no result in time" if looks_up else None

    @property
    def login_hint(self) -> str:
        """The `Login.hint` of the login; '' for a fixed login."""
        login = cast("Login | None", self.credential_provider)
        return "" if login is None else login.hint

    def lifetime(self) -> float | None:
        """The `Login.connection_lifetime` of the login, in seconds; None means no limit."""
        login = cast("Login | None", self.credential_provider)
        return None if login is None else login.connection_lifetime()

    def distrust(self) -> None:
        """Make the next connection find the server again, and try the other addresses of its name first."""
        self._route.failed(self.host, self.port, self.address)

    @property
    def reached(self) -> bool:
        """Whether the server's machine has accepted the connection."""
        return self.address is not None or self._has_transport

    @property
    def writable(self) -> bool:
        """Whether `write` can write to the server: the connection is made, and neither side has closed it.

        This asks the kernel, because the stream may not have noticed its end yet.
        """
        return not self.ended and self._writer is not None and not _is_closed(self._writer)

    def write(self, commands: Iterable[tuple[bytes | str | int, ...]]) -> None:
        """Write commands at once. Only their replies show whether they arrived.

        Raises:
            redis.exceptions.ConnectionError: the connection is not made, or was closed; nothing was written.
        """
        if self._writer is None:
            raise Disconnected("Connection closed")
        self._writer.writelines(self.pack_commands(commands))

    @property
    def assured(self) -> bool:
        """Whether `assure` does nothing."""
        return self._route.place.assured

    async def assure(self) -> None:
        """Check that the server is still the right one, before a lease is acquired (`Place.assure`)."""
        await self._route.place.assure()

    @property
    def redirects(self) -> bool:
        """Whether the place follows a redirect of the server to another node."""
        return self._route.place.redirects

    def moved(self, node: Node) -> None:
        """Use another node, which the server named, for the next leading connection."""
        self._route.place.moved(node)

    def beside(self, node: Node) -> "RedisConnection":
        """A connection to another node that the server named for one call."""
        return self._route.place.beside(node)

    async def connect(self) -> None:
        """Connect and log in. A leading connection finds the server and checks that it is the right one.

        Raises:
            RedisError, OSError: the server cannot be found or reached, refuses the user, or is not the right one.
        """
        if self._leading:
            self.host, self.port = await self._route.place.find()
            self.named = self._route.place.named((self.host, self.port))
        self.logging_in = True
        await super().connect()  # type: ignore[no-untyped-call]
        self.logging_in = False
        if self._leading:
            await self._route.place.confirm(self)
            self._route.leads(self)

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply. A cancellation by a limit gets a note that names the server if the settings do not name it."""
        try:
            return await super().read_response(*args, **options)
        except asyncio.CancelledError as cancelled:
            note(cancelled, self.named)
            raise

    def identify(self, info: object) -> bool:
        """Read the server's run id from an answer to INFO server. Servers behind one address differ in their run id.

        Returns False if the leading connection is known to have another server.
        """
        found = re.search(r"run_id:(\w+)", info) if isinstance(info, str) else None
        self.server = found.group(1) if found else None
        return self._route.identified(self, leading=self._leading)

    def abort(self) -> None:
        """End the stream at once."""
        self.optional.aborted()
        if self._writer is not None:
            self._writer.transport.abort()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        reader = _Stream(self._stream_ended, self._explained, loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport = await self._transport(lambda: protocol)
        self._has_transport = True
        self._reader, self._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)
        if not self._leading:
            self._route.joined(self)

    async def _transport(self, protocol: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        if self._leading:
            connected = await self._route.lead(self.host, self.port)
        else:
            self.host, connected = await self._route.follow()
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

    def _explained(self, error: Exception | None) -> Exception | None:
        """A readable cause for a stream that ended before anything was received; None if `error` says enough.

        Args:
            error: the event loop's error; None if the server closed the stream.
        """
        return Disconnected(f"{error or 'Connection closed by server'}{_EXPECTS_TLS}")

    def _stream_ended(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._route.left(self)
        if self.is_connected:  # otherwise the sidecar closed the connection
            self.optional.ended()
            if self._leading:
                self._route.may_have_moved(self.host, self.port)
        self.when_ended()


class _ByTls(RedisConnection):
    """A connection by TLS. The certificate must be valid for the name, whichever of its addresses answers."""

    def __init__(self, *, tls: "Tls", **options: Any) -> None:
        super().__init__(**options)
        self._tls = tls

    def awaited(self) -> str | None:
        in_handshake = self.address is not None and not self._has_transport
        return _NO_HANDSHAKE.format(instead=self._tls.plain_instead) if in_handshake else super().awaited()

    def _connection_arguments(self) -> dict[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._tls.context()}

    async def _transport(self, protocol: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        try:
            return await super()._transport(protocol)
        except OSError as error:
            if self.address is None or isinstance(error, TimeoutError):
                raise
            raise self._tls.failed_handshake(error, self.host) from None

    def _explained(self, error: Exception | None) -> Exception | None:
        return self._tls.closed_at_once(error)


class _ByUnixSocket(RedisConnection, UnixDomainSocketConnection):
    async def _transport(self, protocol: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        transport, _ = await asyncio.get_running_loop().create_unix_connection(protocol, path=self.path)
        return transport

    def awaited(self) -> str | None:
        return None

    def _host_error(self) -> str:
        return str(self.path)


class Connector:
    """Makes unconnected connections to one Redis. Retries, limits and greetings of redis-py are turned off.

    Args:
        address: the address of Redis.
        kind: the kind of Redis.
        lookups: the name lookups to use; by default, a new `Lookups`.
        limit: seconds for the lookup and for all addresses of one connection.

    Raises:
        SettingsError: a file of the login or of TLS cannot be used.
    """

    def __init__(
        self, address: RedisAddress, kind: ServerKind = None, *, lookups: Lookups | None = None, limit: float = 5.0
    ) -> None:
        given: dict[str, Any] = {"host": address.host, "port": address.port}
        if address.url is not None:
            url, _, options = address.url.partition("?")  # the options of TLS are in `address.tls`
            given = {**parse_url(url), **{name: int(value) for name, value in parse_qsl(options) if name == "db"}}
        by_socket = given.pop("connection_class", None) is UnixDomainSocketConnection
        self._make: Callable[..., RedisConnection] = _ByUnixSocket if by_socket else RedisConnection
        if address.tls is not None:
            from sidecar.redis.tls import Tls

            given["tls"] = Tls(address.tls)
            self._make = _ByTls
        lookups = lookups or Lookups()
        self.login = login_of(address, lookups)
        """The login, if it may change while the sidecar runs; otherwise None."""
        fixed = {"username": address.username, "password": address.password}
        given |= {name: value for name, value in fixed.items() if value is not None and self.login is None}
        given["credential_provider"] = self.login
        given |= {"socket_timeout": None, "socket_connect_timeout": None, "health_check_interval": 0, "protocol": 2}
        given |= {"decode_responses": True, "encoding_errors": "replace", "driver_info": None}
        given |= {"retry_on_timeout": False}
        self._options = given
        self._lookups, self._limit = lookups, limit
        self._place = self._place_of(kind)
        self._route = Route(self._place, lookups, limit)

    def __call__(self) -> RedisConnection:
        """A leading connection, which looks the name up and chooses among its addresses."""
        return self._make(route=self._route, leading=True, **self._options)

    def companion(self) -> RedisConnection:
        """A connection to the leading connection's server. It ends when the leading connection has another server."""
        return self._make(route=self._route, leading=False, **self._options)

    async def follow(self, changed: Callable[[], None], interval: float) -> None:
        """Check every `interval` seconds whether the server is elsewhere, and call `changed` if so, until cancelled."""
        while True:
            await asyncio.sleep(interval)
            if await self._place.elsewhere():
                changed()

    def _place_of(self, kind: ServerKind) -> Place:
        """The place of the server. Only the module of the configured kind is imported."""
        node = str(self._options.get("host") or "localhost"), int(self._options.get("port") or 6379)
        if isinstance(kind, Cluster):
            from sidecar.redis.cluster import ClusterPlace

            return ClusterPlace(node, kind.slot, self._direct, self._limit)
        if isinstance(kind, Sentinels):
            from sidecar.redis.sentinels import SentinelPlace

            user = {"username": kind.username, "password": kind.password, "credential_provider": None, "db": 0}
            return SentinelPlace(kind, lambda each: self._direct(each, **user), self._limit)
        return FixedPlace(*node)

    def _direct(self, node: Node, **options: Any) -> RedisConnection:
        """A separate connection to a node, without companions."""
        route = Route(FixedPlace(*node, named=self._place.named(node)), self._lookups, self._limit)
        return self._make(route=route, leading=True, **{**self._options, **options})


def _is_closed(writer: asyncio.StreamWriter) -> bool:
    """Whether either side has closed the connection. Nothing is read from the socket."""
    if writer.is_closing():
        return True
    poll = select.poll()
    poll.register(writer.get_extra_info("socket").fileno(), _PEER_CLOSED)
    return bool(poll.poll(0))


def _ignore() -> None:
    """Do nothing."""
