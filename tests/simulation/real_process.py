"""A process with the production `LeaseClient`, whose requests go to a `Wire` instead of a socket."""

import asyncio
from contextlib import suppress
from typing import Any, Protocol, Self, cast

from sidecar.client import LeaseClient, Term
from tests.simulation.client_driven import Bare
from tests.simulation.driven import NAME

CHECK = 0.09
"""The time between two checks of the term by the work, in seconds."""


class Wire(Protocol):
    """The receiver of the requests, which also records what the process does."""

    world: Bare

    def now(self) -> float: ...
    def note(self, what: str, *more: object) -> None: ...
    def begins(self, token: int) -> None: ...
    def sends(self, request: "Request") -> None: ...
    def heard(self, request: "Request") -> None: ...
    def hangs_up(self, request: "Request") -> None: ...


class Request:
    """A request on its way to the sidecar, and its answer."""

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
        self.gone = self.of_work = False
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
        """Do nothing: the request has ended."""

    async def iter_any(self) -> Any:
        yield self.body

    async def readany(self) -> bytes:
        return self.body


class Failed(Exception):
    """The error that the work raises when it fails."""


class Process:
    """A process with a `LeaseClient`.

    Args:
        wire: the receiver of the requests.
        name: the name of the process.
        unwinds: seconds that the work needs to end after its cancellation.
        checks: the work also calls `Term.check`.
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
        """Whether the process has a term that it has not given up."""
        return self.leadership._term is not None

    def request(self, method: str, url: str, *, params: Any = None, **_: object) -> Request:
        """A request, in place of `aiohttp.ClientSession.request`."""
        return Request(self, method, url.removeprefix("http://sidecar"), params or {})

    async def close(self) -> None:
        """The end of the session, in place of `aiohttp.ClientSession.close`."""

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
        """End the work. Work that needs time to end is cancelled; other work returns and fails alternately."""
        if self.unwinds or not self.working:
            self._run.cancel()
        else:
            self._fails = not self._fails
            self._done.set()

    def leave(self) -> None:
        """Cancel the work, and close the client."""
        self.leaves = True
        self._run.cancel()

    def kill(self) -> None:
        """End the process: it sends and records nothing from now on."""
        self.dead = True
        self._run.cancel()
