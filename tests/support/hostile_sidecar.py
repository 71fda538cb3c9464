"""A fake sidecar for tests of the client. It keeps to the contract until the test makes it misbehave."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

import pytest
from aiohttp import web

from tests.support.fake_sidecar import answer
from tests.support.waiting import undisturbed

NAME = "background_services"


class FakeSidecar:
    """A sidecar with one lease. `elect` and `follow` change the lease; `misbehave`, if set, answers `/is-leader`."""

    def __init__(self) -> None:
        self.instance_id = "task-a"
        self.grant = 10.0
        """Seconds of a grant: longer than a usual standstill of the machine."""
        self.token: int | None = None
        self.holder: str | None = "task-b"
        self.state = "following"
        self.misbehave: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.once_resigned: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.reelect = False
        self.polls: list[tuple[float, dict[str, str]]] = []
        self.events: list[str] = []
        self.peers: list[tuple[str, Any]] = []
        self.headers: list[Any] = []
        self.url = ""
        self._began = 0.0
        self._version = 0
        self._changed = asyncio.Condition()

    async def elect(self, token: int) -> None:
        self._began = time.monotonic()
        await self._change(token, self.instance_id, "leading")

    async def follow(self, holder: str | None = "task-b", state: str = "following") -> None:
        await self._change(None, holder, state)

    async def _change(self, token: int | None, holder: str | None, state: str) -> None:
        self.token, self.holder, self.state = token, holder, state
        self._version += 1
        async with self._changed:
            self._changed.notify_all()

    def answer(self, arrived: float | None = None, **changes: Any) -> dict[str, Any]:
        arrived = time.monotonic() if arrived is None else arrived
        leads = self.token is not None
        true = answer(
            NAME,
            instance_id=self.instance_id,
            holder=self.holder,
            token=self.token,
            expires_in=max(self._began - arrived, 0.0) + self.grant if leads else None,
            state=self.state,
            version=f"boot/{self._version}",
        )
        return true | changes

    async def asked(self, request: web.Request) -> web.StreamResponse:
        self.polls.append((time.monotonic(), dict(request.query)))
        self.peers.append(("poll", request.transport and request.transport.get_extra_info("peername")))
        self.headers.append(request.headers)
        if self.misbehave is not None:
            return await self.misbehave(request)
        arrived = time.monotonic()
        if "wait" in request.query:
            wait = float(request.query["wait"])
            assert 0 < wait <= 30
            try:
                async with asyncio.timeout(min(wait, self.grant / 2) if self.token else wait), self._changed:
                    await self._changed.wait_for(lambda: request.query["version"] != f"boot/{self._version}")
            except TimeoutError:
                pass
        return web.json_response(self.answer(arrived))

    async def resigned(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["X-Lease-Client"]
        if self.once_resigned is not None:
            behave, self.once_resigned = self.once_resigned, None
            return await behave(request)
        self.peers.append(("resign", request.transport and request.transport.get_extra_info("peername")))
        self.events.append("resign")
        last = self.token
        if "token" in request.query and request.query["token"] != str(last):
            return web.json_response({"resigned": False})
        await self.follow()
        if self.reelect and last is not None:
            await self.elect(last + 1)
        return web.json_response({})

    async def leader_probed(self, request: web.Request) -> web.StreamResponse:
        self.peers.append(("knock", request.transport and request.transport.get_extra_info("peername")))
        return web.json_response({"is_leader": self.token is not None}, status=200 if self.token else 503)

    async def silence(self, request: web.Request) -> web.StreamResponse:
        """A behaviour that never answers the request."""
        await asyncio.Event().wait()
        raise AssertionError

    async def honest(self, request: web.Request) -> web.StreamResponse:
        """The target of a redirect.

        A client that follows the redirect gets a true answer, as if from another server.
        """
        return web.json_response(self.answer())

    def says(self, **changes: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A behaviour that gives the true answer with `changes`, at once."""

        async def behave(request: web.Request) -> web.StreamResponse:
            return web.json_response(self.answer(**changes))

        return behave


@asynccontextmanager
async def fake_sidecar() -> AsyncIterator[FakeSidecar]:
    sidecar = FakeSidecar()
    app = web.Application()
    app.router.add_get(f"/is-leader/{NAME}", sidecar.asked)
    app.router.add_get("/an/honest/answer", sidecar.honest)
    app.router.add_post(f"/resign/{NAME}", sidecar.resigned)
    app.router.add_get(f"/leader/{NAME}", sidecar.leader_probed)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sidecar.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield sidecar
    finally:
        await runner.cleanup()


Test = Callable[..., Awaitable[None]]


def on_the_clock(*, bears: float) -> Callable[[Test], Test]:
    """Repeat a test that fails if this process stood still for longer than `bears` seconds; see `undisturbed`.

    Each round has its own sidecar.
    """

    def decorate(test: Test) -> Test:
        @wraps(test)
        async def rounds(**fixtures: Any) -> None:
            async def check() -> None:
                async with fake_sidecar() as sidecar:
                    if isinstance(caplog := fixtures.get("caplog"), pytest.LogCaptureFixture):
                        caplog.clear()
                    await test(**fixtures | ({"sidecar": sidecar} if "sidecar" in fixtures else {}))

            await undisturbed(check, bears=bears)

        return rounds

    return decorate


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Work:
    """Work that runs until it is cancelled, and records events. `left` has the seconds that remained of each term."""

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.terms: list[Any] = []
        self.left: list[float] = []
        self.running = 0
        self.release = asyncio.Event()
        self.release.set()

    async def __call__(self, term: Any) -> None:
        assert self.running == 0, "the work runs twice at the same time"
        self.running += 1
        self.terms.append(term)
        self.events.append(f"begin {term.token}")
        try:
            await asyncio.Event().wait()
        finally:
            self.events.append(f"cancel {term.token}")
            try:
                await self.release.wait()
            finally:
                self.running -= 1
                self.left.append(term.remaining())
                self.events.append(f"end {term.token}")
