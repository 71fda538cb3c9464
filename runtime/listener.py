"""The HTTP listener of both containers: errors in JSON, and limits for connections.

aiohttp limits neither the number of connections nor the time for a request's header. Without limits, anybody who
reaches a port can use up the file descriptors that the connections to Redis, the database and the other container need.
"""

import asyncio
import ipaddress
import json
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, cast

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE, HttpVersion11, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from runtime.addresses import Address
from runtime.escape import one_line

MAX_ERROR = 200
"""Limit of the description of a malformed request in an answer, in characters."""
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nDate: %b\r\nServer: "
    + SERVER_SOFTWARE.encode()
    + b"\r\n\r\n%b"
)
"""An answer with the headers of aiohttp's `web.Response`. Placeholders: the length of the body, the date, the body."""
END_OF_HEADER = (b"\r\n\r\n", b"\n\n")
REPORT_INTERVAL = 60.0
"""Minimum time between two log lines about the limit on connections, in seconds."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a listener's connections; the default is no limit.

    Args:
        connections: maximum number of open connections. Further connections are closed at once.
        per_peer: maximum number of open connections of a peer: an IPv4 address, or a /64 network of IPv6.
        header: seconds for a request's header, from its first byte to its last.
        idle: seconds for which a connection may have no request, and for which the peer may leave an answer unread.
    """

    connections: float = inf
    per_peer: float = inf
    header: float = inf
    idle: float = inf


AtOnce = Callable[[RawRequestMessage], bytes | None]
"""Function that returns the JSON body of the answer to a request; None if the application has to answer the request."""


class Listener(web.BaseSite):
    """Accepts connections at an address for an `AppRunner`, whose `setup` has been called.

    Args:
        runner: the application's runner.
        address: where to listen.
        limits: limits of the connections.
        at_once: answers some requests in the place of the application, with the status 200 and without waiting.
    """

    def __init__(
        self, runner: web.AppRunner, address: Address, limits: Limits | None = None, at_once: AtOnce | None = None
    ) -> None:
        super().__init__(runner)
        self._address = address
        self._limits = limits or Limits()
        self._at_once = at_once
        self._silent_until = -inf

    @property
    def name(self) -> str:
        """The address as a URL."""
        return f"http://{self._address}"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the listener cannot use the address.
        """
        await super().start()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accepted, self._address.host, self._address.port)

    def _accepted(self) -> asyncio.Protocol:
        assert self._runner.server is not None  # noqa: S101 - aiohttp's `BaseSite` refuses a runner without a server
        return _Admission(self._runner.server, self._limits, self._at_once, self._report_limit)

    def _report_limit(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._silent_until:
            self._silent_until = now + REPORT_INTERVAL
            most = self._limits.connections
            logger.warning("%s: %d connections are open, which is the limit; others are closed", self.name, most)


class _Admission(asyncio.Protocol):
    """The first protocol of a new connection. Once the peer is known, it admits or closes the connection."""

    def __init__(
        self, server: web.Server, limits: Limits, at_once: AtOnce | None, report_limit: Callable[[], None]
    ) -> None:
        self._server = server
        self._limits = limits
        self._at_once = at_once
        self._report_limit = report_limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's transport is not a subclass
        if not self._admits(_network(transport)):
            transport.abort()
            return
        if self._limits.idle < inf:
            # Without this limit an unread answer keeps a connection open forever, even after this side has closed it.
            milliseconds = int(self._limits.idle * 1000)
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        kind = _Connection if self._limits.header == inf else _TimedConnection
        connection = kind(self._server, self._limits, self._at_once)
        transport.set_protocol(connection)
        connection.connection_made(transport)

    def _admits(self, network: str) -> bool:
        connections = self._server.connections
        if len(connections) >= self._limits.connections:
            self._report_limit()
            return False
        if self._limits.per_peer == inf:
            return True
        theirs = sum(isinstance(each, _Connection) and each.network == network for each in connections)
        return theirs < self._limits.per_peer


class _Connection(web.RequestHandler):
    """aiohttp's request handler, but its built-in errors are JSON, and it answers some requests at once.

    aiohttp answers each request in a new task, through the router, the middlewares and a writer. An answer that is
    known as soon as the request is parsed needs none of them.
    """

    __slots__ = ("_at_once", "network")

    def __init__(self, server: web.Server, limits: Limits, at_once: AtOnce | None = None) -> None:
        options: dict[str, Any] = {} if limits.idle == inf else {"keepalive_timeout": limits.idle}
        options["access_log"] = None  # a metric counts requests
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._at_once = at_once
        if at_once is not None:
            self._parser = cast("Any", _AnsweringParser(self._parser, self._answers))
        self.network = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.network = _network(transport)
        super().connection_made(transport)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to malformed HTTP, or to a request whose handler failed. The connection is then closed."""
        answer = super().handle_error(request, status, exc, message)  # logs the error
        if message and isinstance(answer, web.Response):
            _set_error(answer, f"malformed HTTP: {one_line(message.splitlines()[0].rstrip(':'), MAX_ERROR)}")
        return answer

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Send the answer; a built-in error of aiohttp becomes JSON first."""
        if isinstance(resp, web.Response) and resp.status >= 400 and resp.content_type != "application/json":
            is_default = resp.text in (None, f"{resp.status}: {resp.reason}") or not isinstance(resp, web.HTTPError)
            _set_error(resp, f"{resp.reason}: {request.method} {request.path}" if is_default else str(resp.text))
        return super().finish_response(request, resp, start_time)

    def _answers(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        """Answer the request if no other request is pending and the connection stays open.

        Returns whether the request was answered.
        """
        transport, waiter = self.transport, self._waiter
        if self._at_once is None or transport is None or waiter is None or waiter.done():
            return False  # an earlier request is being answered
        if message.should_close or message.upgrade or message.version != HttpVersion11 or payload is not EMPTY_PAYLOAD:
            return False
        if transport.is_closing() or transport.get_write_buffer_size():  # the application answers a slow reader
            return False
        try:
            body = self._at_once(message)
        except Exception:  # noqa: BLE001 - the application meets the same error, logs it and answers with status 500
            return False
        if body is None:
            return False
        transport.write(_ANSWER % (len(body), rfc822_formatted_time().encode(), body))
        self._request_count += 1
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        return True


class _AnsweringParser:
    """aiohttp's parser of a connection. A request that `answers` has answered is not passed to the connection."""

    def __init__(self, parser: Any, answers: Callable[[RawRequestMessage, StreamReader], bool]) -> None:
        self._parser = parser
        self._answers = answers

    def feed_data(self, data: bytes) -> tuple[Sequence[tuple[RawRequestMessage, StreamReader]], bool, bytes]:
        """Parse the bytes; returns the requests that are not answered yet."""
        messages, upgraded, tail = self._parser.feed_data(data)
        if len(messages) == 1 and self._answers(*messages[0]):
            self._parser.message_consumed()
            messages = ()
        return messages, upgraded, tail

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


class _TimedConnection(_Connection):
    """A connection with a limit for the time of a request's header."""

    __slots__ = ("_body", "_header_limit", "_header_timer", "_last_bytes")

    def __init__(self, server: web.Server, limits: Limits, at_once: AtOnce | None = None) -> None:
        super().__init__(server, limits, at_once)
        self._header_limit = limits.header
        self._header_timer: asyncio.TimerHandle | None = None
        self._body: StreamReader = EMPTY_PAYLOAD  # the body of the last request
        self._last_bytes = b""

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, and notice where a header begins and ends."""
        of_header, requests = self._body.is_eof(), self._request_count
        super().data_received(data)
        self._last_bytes = (self._last_bytes + data)[-4:]
        if self._request_count > requests:
            self._stop_timer()
            self._body = self._messages[-1][1] if self._messages else EMPTY_PAYLOAD
            # These bytes may also contain the beginning of the next header. After a request with a body, only later
            # bytes show whether that header has begun.
            of_header = self._body is EMPTY_PAYLOAD and not self._last_bytes.endswith(END_OF_HEADER)
        if of_header and data and self._header_timer is None:
            self._start_timer()

    def _start_timer(self) -> None:
        self._header_timer = asyncio.get_running_loop().call_later(self._header_limit, self._header_is_late)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _header_is_late(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self.force_close()
        else:  # an earlier request is still being answered, so the header need not be complete yet
            self._start_timer()


def _set_error(answer: web.Response, error: str) -> None:
    answer.text = json.dumps({"error": error})
    answer.content_type = "application/json"


def _network(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return network_of(peer[0]) if peer else ""


def network_of(host: str) -> str:
    """The peer that a numeric address belongs to: the IPv4 address itself, or a /64 network of IPv6.

    A host with one IPv6 address can usually use every address of its /64 network. A dual-stack socket shows an IPv4
    address as an IPv4-mapped IPv6 address.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
