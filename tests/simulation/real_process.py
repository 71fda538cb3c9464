"""A process with the production `LeaseClient`, whose requests are handed to a `Wire` and not to a socket."""

import asyncio
from contextlib import suppress
from typing import Any, Protocol, Self, cast

from sidecar.client import LeaseClient, Term
from tests.simulation.client_driven import Bare
from tests.simulation.driven import NAME

CHECK = 0.09
"""How often the work checks its term, in seconds."""


class Wire(Protocol):
    """Where requests go, and who notes what the process does."""

    world: Bare

    def now(self) -> float: ...
    def note(self, what: str, *more: object) -> None: ...
    def begins(self, token: int) -> None: ...
    def sends(self, request: "Request") -> None: ...
    def heard(self, request: "Request") -> None: ...
    def hangs_up(self, request: "Request") -> None: ...


class Request:
    """On its way to the sidecar, and its answer back."""

    def __init__(self, process: "Process", method: str, path: str, params: dict[str, str]) -> None:
        self.process = process
        self.call = f"{method} {path}"
        self.sent_at = 0.0
        self.wait = float(params.get("wait", 0.0))
        self.version = params.get("version")
        self.token = int(params["token"]) if "token" in params else None
        self.arrived = self.limit = 0.0
        self.ticket = 0
        self.content = self
        self.status = 200
        self.body = b""
        self.gone = False
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        self.process.wire.sends(self)
        try:
            self.body = await self.answer
        except asyncio.CancelledError:
            self.process.wire.hangs_up(self)
            raise
        finally:
            self.process.wire.heard(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        """It is over."""

    async def iter_any(self) -> Any:
        yield self.body

    async def readany(self) -> bytes:
        return self.body


class Failed(Exception):
    """What the work raises."""


class Process:
    """A process with a `LeaseClient`.

    Args:
        unwinds: so many seconds its work takes to end once it is cancelled.
        checks: the work calls `Term.check`, too.
    """

    def __init__(self, wire: Wire, name: str, unwinds: float, *, checks: bool) -> None:
        self.wire = wire
        self.name = name
        self.unwinds = unwinds
        self.checks = checks
        self.dead = self.leaves = self.working = self.unwinding = False
        self.client = LeaseClient("http://sidecar", clock=wire.now, uniform=wire.world.random.uniform)
        self.client._sidecar._session = cast("Any", self)
        self.leadership = self.client.leadership(NAME)
        self._done = asyncio.Event()
        self._fails = False
        self._run = asyncio.create_task(self.leadership.run(self._work))
        self.life = asyncio.create_task(self._live())

    @property
    def believes(self) -> bool:
        """It has a term that has not been given up."""
        return self.leadership._term is not None

    def request(self, method: str, url: str, *, params: Any = None, **_: object) -> Request:
        """What the client takes for `aiohttp.ClientSession.request`."""
        return Request(self, method, url.removeprefix("http://sidecar"), params or {})

    async def close(self) -> None:
        """What the client takes for `aiohttp.ClientSession.close`."""

    async def _live(self) -> None:
        while True:
            await asyncio.wait([self._run])
            if not self._run.cancelled() and not isinstance(self._run.exception(), Failed):
                self._run.result()
            if self.leaves or self.dead:
                await self.client._sidecar.close()
                return
            self._run = asyncio.create_task(self.leadership.run(self._work))

    async def _work(self, term: Term) -> None:
        loop = asyncio.get_running_loop()
        self.working = True
        self._done.clear()
        self.wire.begins(term.token)
        try:
            while not self._done.is_set():
                if self.checks:
                    term.check()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._done.wait(), CHECK if self.checks else None)
        finally:
            self.unwinding = True
            over = loop.time() + self.unwinds
            while not self.dead and (left := over - loop.time()) > 0:
                try:
                    await asyncio.sleep(left)
                except asyncio.CancelledError:
                    continue
            self.working = self.unwinding = False
            if not self.dead:
                self.wire.note("ended")
        if self._fails:
            raise Failed

    def stop(self) -> None:
        """The work returns at once or, every other time, fails; or it is cancelled and unwinds."""
        if self.unwinds or not self.working:
            self._run.cancel()
        else:
            self._fails = not self._fails
            self._done.set()

    def leave(self) -> None:
        """Cancel it, and close the client."""
        self.leaves = True
        self._run.cancel()

    def kill(self) -> None:
        """It does nothing from here on that anybody could see."""
        self.dead = True
        self._run.cancel()
