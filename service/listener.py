"""Where HTTP connections come in, and what each of them may take.

aiohttp has no limit on how long a request's header takes: `KEEP_ALIVE` ends a connection on which no whole header has
come for so long, whether nothing was sent or half of one. Nor has it a limit on connections: without one they could
take the file descriptors that the database, the sidecar and the prices need, and with them the lead. A load balancer
in front, which passes whole headers on and shares its connections, keeps both limits from ever being met.
"""

import asyncio
import resource
from http import HTTPStatus
from typing import Any

from aiohttp import web

from runtime.escape import one_line
from service.address import Address
from service.limits import KEEP_ALIVE, MOST_CONNECTIONS, RESERVED_DESCRIPTORS


def runner(app: web.Application, *, shutdown_timeout: float) -> web.AppRunner:
    """What answers for the application; `shutdown_timeout` is how many seconds its connections have to end."""
    return web.AppRunner(
        app,
        handler_cancellation=True,  # the end of a stream whose client has gone
        shutdown_timeout=shutdown_timeout,
    )


class Listener(web.BaseSite):
    """Listens on an address; a connection beyond as many as there may be is closed at once."""

    def __init__(self, runner: web.AppRunner, address: Address, *, most: int | None = None) -> None:
        super().__init__(runner)
        self._address = address
        self._most = most_connections() if most is None else most

    @property
    def name(self) -> str:
        """The address as a URL."""
        return f"http://{self._address}"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        await super().start()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connected, self._address.host, self._address.port)

    def _connected(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= self._most:
            return _Refused()
        options: dict[str, Any] = {"access_log": None, "keepalive_timeout": KEEP_ALIVE}  # a metric counts every request
        return _Connection(server, loop=asyncio.get_running_loop(), **options)


class _Connection(web.RequestHandler):
    """As aiohttp's own, but what reaches no route, such as what is no HTTP, is answered with JSON too."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer, after which the connection is closed."""
        super().handle_error(request, status, exc, message)  # it logs
        what = HTTPStatus(status).phrase
        if message:
            what = f"malformed HTTP: {one_line(message.splitlines()[0].rstrip(':'))}"
        answer = web.json_response({"error": what}, status=status)
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; an error is still one of aiohttp's here only if no route was asked."""
        if isinstance(resp, web.HTTPError):
            resp = web.json_response({"error": resp.text or resp.reason}, status=resp.status)
        return await super().finish_response(request, resp, start_time)


class _Refused(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def most_connections() -> int:
    """How many there may be: `MOST_CONNECTIONS`, or as the process's limit on open files allows."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(files - RESERVED_DESCRIPTORS, files // 2))
