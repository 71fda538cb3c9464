"""Fake sidecars for tests of the service: one leads every lease until its resign, the other reports what the test sets.

`tests.support.hostile_sidecar` is for tests of the client: it leads its only lease when the test calls `elect`, and it
can misbehave.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from aiohttp import web

from ops.local.servers import free_port
from tests.support.listening import listening

TOKEN = 7
GRANT = 30.0
"""Seconds of a grant, longer than a usual standstill of the machine. A service whose grant has expired resigns."""


def answer(
    lease: str,
    *,
    instance_id: str,
    holder: str | None,
    token: int | None,
    expires_in: float | None,
    state: str,
    version: str,
) -> dict[str, Any]:
    """The JSON of `GET /is-leader/LEASE`, as in the contract. The answer grants the lease if it has a token."""
    return {
        "lease": lease,
        "is_leader": token is not None,
        "instance_id": instance_id,
        "holder": holder,
        "token": token,
        "expires_in": expires_in,
        "state": state,
        "version": version,
    }


class LeadingSidecar:
    """A sidecar that leads every lease until its resign, and then calls `on_resign` with the lease's name."""

    def __init__(self, on_resign: Callable[[str], Awaitable[None]]) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.resigned: list[str] = []
        self._on_resign = on_resign
        self._changed = asyncio.Event()
        app = web.Application()
        app.router.add_get("/is-leader/{name}", self._is_leader)
        app.router.add_get("/leader/{name}", self._leader)
        app.router.add_post("/resign/{name}", self._resign)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._port = port

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _is_leader(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        wait = float(request.query.get("wait", "0"))
        try:
            async with asyncio.timeout(min(wait, 1.0)):
                await self._changed.wait()
        except TimeoutError:
            pass
        leads = name not in self.resigned
        return web.json_response(
            answer(
                name,
                instance_id="fake",
                holder="fake" if leads else None,
                token=TOKEN if leads else None,
                expires_in=GRANT if leads else None,
                state="leading" if leads else "waiting",
                version=str(leads),
            )
        )

    async def _leader(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.match_info["name"] not in self.resigned else 503)

    async def _resign(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.resigned.append(name)
        await self._on_resign(name)
        return web.json_response({})


def lease_report(**changes: Any) -> dict[str, Any]:
    """A lease in the JSON of `GET /status`. By default another task leads it."""
    true = {
        "state": "following",
        "is_leader": False,
        "holder": "task-b",
        "token": None,
        "remaining": 0.0,
        "trouble": None,
    }
    return true | changes


def past_term(token: int, holder: str, **changes: Any) -> dict[str, Any]:
    """A term in the JSON of `GET /history/LEASE`. It began `token` minutes after noon, and ended a minute later."""
    began = datetime(2026, 11, 28, 12, tzinfo=UTC) + timedelta(minutes=token)
    true = {
        "token": token,
        "holder": holder,
        "acquired_at": f"{began:%Y-%m-%dT%H:%M:%S}.123Z",
        "released_at": f"{began + timedelta(minutes=1):%Y-%m-%dT%H:%M:%S}.123Z",
        "end": "released",
        "reason": "resigned",
    }
    return true | changes


class ReportingSidecar:
    """A sidecar that leads nothing, and reports the leases and the terms that the test sets.

    Args:
        names: the names of the leases.
    """

    def __init__(self, *names: str) -> None:
        self.leases = {name: lease_report() for name in names}
        self.terms: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        self.refusal: tuple[int, dict[str, Any]] | None = None
        """Status and body in place of every history; an older sidecar answers 404."""
        self.is_frozen = False
        """True if the sidecar does not answer `GET /status`."""
        self.paths: list[str] = []
        """The requested paths."""
        self.url = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """Answer requests at `url`."""
        app = web.Application()
        app.router.add_get("/status", self._status)
        app.router.add_get("/history/{name}", self._history)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        async with listening(runner) as self.url:
            yield self

    async def _status(self, request: web.Request) -> web.Response:
        self.paths.append(request.path)
        if self.is_frozen:
            await asyncio.Event().wait()
        return web.json_response({"instance_id": "task-a", "leases": self.leases, "redis": {"address": "redis:6379"}})

    async def _history(self, request: web.Request) -> web.Response:
        self.paths.append(request.path)
        if self.refusal is not None:
            status, body = self.refusal
            return web.json_response(body, status=status)
        name = request.match_info["name"]
        return web.json_response({"lease": name, "terms": self.terms[name]})
