"""A sidecar that leads as long as the test says so, and tells the test of each resign."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

from aiohttp import web

from ops.local.servers import free_port


class FakeSidecar:
    """Speaks the contract of `/is-leader/NAME` and `/resign/NAME`. A resign ends the lead of that lease for good.

    So its grant is one that does not run out while this process stands still: a service that lost it would resign.
    """

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
            {
                "lease": name,
                "is_leader": leads,
                "instance_id": "fake",
                "holder": "fake" if leads else None,
                "token": 7 if leads else None,
                "expires_in": 30.0 if leads else None,
                "state": "leading" if leads else "waiting",
                "version": str(leads),
            }
        )

    async def _leader(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.match_info["name"] not in self.resigned else 503)

    async def _resign(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.resigned.append(name)
        await self._on_resign(name)
        return web.json_response({})
