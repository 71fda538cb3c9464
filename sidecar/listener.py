"""Where HTTP connections come in: every error is JSON, and strangers take no more of them than the lead can spare."""

import asyncio
import json
from math import inf
from typing import Any

from aiohttp import web

from sidecar.settings import Address

STRANGERS = 64
"""How many connections may come from outside the task; one beyond is closed at once."""
PATIENCE = 75.0
"""After so many seconds without a whole request a stranger's connection is closed, half a header or none on it."""


class Listener(web.BaseSite):
    """Listens on an address.

    Args:
        strangers: who connects may be anybody, and could take the file descriptors that Redis and the client need.
    """

    def __init__(self, runner: web.AppRunner, address: Address, *, strangers: bool) -> None:
        super().__init__(runner)
        self._address = address
        self._most: float = STRANGERS if strangers else inf
        self._options = {"keepalive_timeout": PATIENCE} if strangers else {}

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
        options: dict[str, Any] = {"access_log": None, **self._options}
        return _Connection(server, loop=asyncio.get_running_loop(), **options)


class _Connection(web.RequestHandler):
    """As aiohttp's own, but what it answers by itself (to what is no HTTP, too, which reaches no route) is JSON."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer, after which the connection is closed."""
        answer = super().handle_error(request, status, exc, message)  # it logs
        if message and isinstance(answer, web.Response):
            _say(answer, f"malformed HTTP: {message.splitlines()[0].rstrip(':')[:200]}")
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer."""
        if isinstance(resp, web.Response) and resp.status >= 400 and resp.content_type != "application/json":
            _say(resp, f"{resp.reason}: {request.method} {request.path}")
        return await super().finish_response(request, resp, start_time)


def _say(answer: web.Response, error: str) -> None:
    answer.text = json.dumps({"error": error})
    answer.content_type = "application/json"


class _Refused(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
