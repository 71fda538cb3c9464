"""The production `LeaseClient` on a loop with the simulated world's time; its requests go to the simulated sidecar.

This module handles the requests as `sidecar.control` does. A frozen process is a loop that does not run.
"""

import asyncio
import json
from typing import Any, cast

import aiohttp

from tests.simulation.candidate import HANDLING, TIMER
from tests.simulation.client_driven import Bare, Notes, Schedule, begin
from tests.simulation.driven import NAME
from tests.simulation.real_process import Process, Request
from tests.simulation.world_loop import WorldLoop


class Real:
    """The production client, in place of the simulated client."""

    def __init__(self, share: float, grant_ttl: float) -> None:
        self.notes = Notes()
        self.world = Bare(share, grant_ttl)
        self.loop = WorldLoop(self.world)
        self.sidecar = self.world.sidecar
        self.sidecar.client = cast("Any", self)
        self._unwinds = 0.0 if share < 0.5 else share**3 * 2
        self._process: Process | None = None
        self._processes = 0
        self._question: Request | None = None  # the `/is-leader` request that the sidecar has or will get
        self.asks: Request | None = None  # the `/is-leader` request whose answer the client awaits
        self._pending: list[Request] = []
        self._quiet = False
        self.held = False
        self.name, self.token = "", None  # the client's name and token in the current request
        self._then = 0.0

    def now(self) -> float:
        return self.sidecar.now()

    def note(self, what: str, *more: object, times: tuple[float, ...] = ()) -> None:
        self.notes.note(self.world.now, what, *more, times=times)

    def begins(self, token: int) -> None:
        self._quiet = False
        self.note("begins", self.notes.nth("token", token))

    @property
    def running(self) -> Process | None:
        """The process of the client, if there is one."""
        process = self._process
        if process is None or process.dead or process.life.done() or (process.leaves and not process.believes):
            return None  # a client that leaves may still wait for the answer to its resign
        return process

    # Events of the process.

    def start(self) -> None:
        if self.running is None:
            self._processes += 1
            self.loop.touched = True
            checks = self.world.random.random() < 0.2
            self._process = Process(self, str(self._processes), self._unwinds, checks=checks)

    def kill(self) -> None:
        if process := self.running:
            process.kill()
            self.loop.frozen, self.loop.touched = False, True
            self._quiet = False
            if self._question is not None:
                self.hangs_up(self._question)

    def freeze(self) -> None:
        if self.running is not None:
            self.loop.frozen = True

    def thaw(self) -> None:
        if self.loop.frozen:
            self.loop.frozen, self.loop.touched = False, True

    def leave(self) -> None:
        if (process := self.running) and not self.loop.frozen:
            self.loop.touched = True
            process.leave()

    def start_over(self) -> None:
        process = self.running
        if process and not self.loop.frozen and process.leadership.is_leader and not process.unwinding:
            self.loop.touched = True
            process.stop()

    def look(self) -> None:
        process, question = self.running, self.asks
        if question is not None and _is_last(question):
            question = None
        left = process.leadership.remaining() if process else 0.0
        token = process.leadership.token if process else None
        times = (question.sent_at, question.wait) if question is not None else ()
        self.note(
            "looks",
            self.notes.nth("token", token),
            process is not None and process.working,
            question is not None,
            times=(self.world.now + left if left else 0.0, *times),
        )

    # Requests.

    def sends(self, request: Request) -> None:
        process, sidecar = request.process, self.sidecar
        if process.dead:
            raise aiohttp.ClientConnectionError
        request.sent_at = self.now()
        if request.call == f"GET /is-leader/{NAME}":
            if (sidecar.alive or process.believes) and not self._quiet:
                version = request.version is not None
                names = self.notes.nth("token", request.token), self.notes.nth("client", process.name)
                self.note("asks", version, *names)
            self._quiet = False
        if not sidecar.alive:
            raise aiohttp.ClientConnectionError
        self._pending.append(request)
        if request.call == f"GET /is-leader/{NAME}":
            self._question = self.asks = request
            request.of_work = process.believes
            if sidecar.frozen:
                sidecar.later(self._arrives, request)
            else:
                self._arrives(request)
        elif request.call == f"POST /resign/{NAME}":
            self._quiet = False
            self.note("resigns", self.notes.nth("token", request.token))
            self.world.at(self.world.now + HANDLING, sidecar.resigned, (None, process.name, request.token))
        else:
            assert request.call == f"GET /leader/{NAME}"
            self._answers(request, {})

    def heard(self, request: Request) -> None:
        """The client no longer waits for the answer."""
        if request is self.asks:
            self.asks = None

    def hangs_up(self, request: Request) -> None:
        """The connection is closed, and the sidecar sees it."""
        request.gone = True
        self._quiet = False
        if request in self._pending:
            self._pending.remove(request)
        if request is self._question:
            self._question = None
            if self.held:
                self.held = False
                self._drop((request.ticket, self.sidecar.boot))

    def _drop(self, arg: tuple[int, int]) -> None:
        if self.sidecar.frozen:
            self.sidecar.later(self._dropped, arg)
        else:
            self.world.at(self.world.now + HANDLING, self._dropped, arg)

    def _dropped(self, arg: tuple[int, int]) -> None:
        ticket, boot = arg
        sidecar = self.sidecar
        if sidecar.alive and boot == sidecar.boot:
            if sidecar.frozen:
                sidecar.later(self._dropped, arg)
            else:
                sidecar.lease.unhold(ticket, sidecar.now(), answered=False)
                self._wake_if_due_earlier()

    def _wake_if_due_earlier(self) -> None:
        sidecar = self.sidecar
        if sidecar.lease.wake_at(sidecar.now()) < sidecar.asleep_until:
            sidecar.wake()

    # The handling at the sidecar, as in `sidecar.control`.

    def _arrives(self, request: Request) -> None:
        sidecar = self.sidecar
        if request.gone or not sidecar.alive:
            return
        request.arrived = sidecar.now()
        self._then = request.wait if sidecar.asked(_parsed(request.version)) else 0.0
        if sidecar.lease.heard_from_redis():
            self._goes_on(request)
        else:
            self._holds(request, self.world.scenario.timings.call_limit)

    def _goes_on(self, request: Request) -> None:
        wait, self._then = self._then, 0.0
        sidecar, now = self.sidecar, self.sidecar.now()
        if not wait:
            self._answers_question(request)
            return
        stands = sidecar.lease.answer_valid_for(now, request.process.name, request.token)
        if stands > 0:
            self._holds(request, min(wait, stands))
        else:
            self._answers_question(request)

    def _holds(self, request: Request, wait: float) -> None:
        request.ticket = self.sidecar.lease.hold()
        request.limit = self.now() + wait
        self.held = True
        self.world.at(self.world.now + wait + TIMER, self._hold_ends, request)

    def _hold_ends(self, request: Request) -> None:
        if self.held and request is self._question and self.now() >= request.limit:
            if self.sidecar.frozen:
                self.sidecar.later(self._hold_ends, request)
            else:
                self._unhold(request)
                self._goes_on(request)

    def _unhold(self, request: Request) -> None:
        self.held = False
        self.sidecar.lease.unhold(request.ticket, self.sidecar.now(), answered=True)
        self._wake_if_due_earlier()

    def release(self, *, answered: bool) -> None:
        """Answer the held request, because the version has changed."""
        if self._question is not None:
            self._unhold(self._question)
            self._answers_question(self._question)

    def _answers_question(self, request: Request) -> None:
        sidecar = self.sidecar
        self.name, self.token = request.process.name, cast("Any", request.token)
        token, expires_in, version = sidecar.grant(request.arrived)
        view = sidecar.lease.view(sidecar.now())
        answer = {
            "lease": NAME,
            "is_leader": expires_in is not None,
            "instance_id": sidecar.instance,
            "holder": view.holder,
            "token": token,
            "expires_in": expires_in,
            "state": view.state,
            "version": f"{version[0]:x}-{version[1]}",
        }
        self._answers(request, answer)

    def _answers(self, request: Request, answer: dict[str, object]) -> None:
        self.world.at(self.world.now + HANDLING, self._returns, (request, answer))

    def _returns(self, arg: tuple[Request, dict[str, object]]) -> None:
        request, answer = arg
        if request in self._pending:
            self._pending.remove(request)
            if request is self._question:
                self._question = None
            if "version" in answer:
                self._quiet = answer["version"] == request.version and not _is_last(request)
            self.loop.touch(request.answer, json.dumps(answer).encode())

    # Events of the simulated sidecar.

    @property
    def grant(self) -> object:
        process = self.running
        return process if process and process.believes else None

    def lost_sidecar(self) -> None:
        self.held = False
        self._question = None
        pending, self._pending = self._pending, []
        for request in pending:
            self.loop.touch(request.answer, aiohttp.ServerDisconnectedError())

    def sidecar_thawed(self) -> None:
        question = self._question
        if self.held and question is not None and self.now() >= question.limit:
            self._unhold(question)
            self._goes_on(question)

    def resign_answered(self) -> None:
        for request in self._pending:
            if request.call.startswith("POST"):
                self._answers(request, {})

    def nothing(self) -> None:
        """Do nothing: this client skips no requests."""

    sync = schedule_end_of_work = found_sidecar = nothing

    # The run.

    async def _live(self, schedule: Schedule, end: float) -> None:
        begin(self, schedule)
        over = self.loop.create_future()
        self.world.at(end, lambda _: self.loop.touch(over, None))
        await over

    def run(self, schedule: Schedule, end: float) -> Notes:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            try:
                runner.run(self._live(schedule, end))
            finally:
                self.loop.frozen = False
                if self._process is not None:
                    self._process.dead = True
        return self.notes


def _is_last(question: Request) -> bool:
    """Whether the client sends no further `/is-leader` request after this request."""
    return question.process.dead or (question.of_work and question.process.leadership._poll.stopped)


def _parsed(version: str | None) -> tuple[int, int] | None:
    if version is None:
        return None
    boot, number = version.split("-")
    return int(boot, 16), int(number)
