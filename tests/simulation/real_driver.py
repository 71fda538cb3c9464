"""`Control`, `Candidate` and `RedisStore` on a loop with virtual time, over a connection to a model of Redis.

As in the simulation, a stopped server never answers a greeting that arrived while it was stopped. A real server answers
that greeting when it continues.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, cast

from aiohttp.test_utils import make_mocked_request
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as Disconnected

from sidecar.control import Control
from sidecar.election.candidate import Candidate
from sidecar.election.lease import Lease
from sidecar.history import Term
from sidecar.protocol import Call, Transition
from sidecar.redis.connection import RedisConnection
from sidecar.redis.optional import EndingRefusals, OptionalCommands
from sidecar.redis.script_calls import SCRIPTS
from sidecar.redis.store import RedisStore
from sidecar.telemetry import Telemetry
from tests.simulation.candidate import COUNTING
from tests.simulation.driven import DELAY, ME, NAME, PATIENT, START, TIMINGS, WATCHERS, Schedule, SidecarNotes
from tests.simulation.server import EPOCH, Server
from tests.simulation.virtual_time import VirtualLoop

_parse_error: Callable[[str], Exception] = BaseParser.parse_error


class Line:
    """A connection for `RedisStore` to the model of Redis, with a delay of `DELAY` in each direction."""

    def __init__(self, real: "Real") -> None:
        self._real = real
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self.ended = self.redirects = False
        self.assured = True
        self.named = ""
        self.optional = OptionalCommands(EndingRefusals(real.now))
        self.when_ended: Callable[[], None] = lambda: None

    async def assure(self) -> None:
        """Do nothing: there are no sentinels."""

    async def connect(self) -> None:
        """Connect without sending anything; a server that is down refuses after `DELAY`."""
        server = self._real.server
        if not self._real.cut and self._real.true() >= server.thaw_at and not server.up:
            await asyncio.sleep(DELAY)
            raise Disconnected("Connection refused")

    def lifetime(self) -> None:
        """Do nothing: the server sets no maximum age."""

    def pack_commands(self, commands: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return commands

    async def send_packed_command(self, commands: list[tuple[Any, ...]]) -> None:
        self.write(commands)

    @property
    def writable(self) -> bool:
        return not self.ended

    def write(self, commands: list[tuple[Any, ...]]) -> None:
        self._real.later(DELAY, self._arrive, commands, self._real.cut)

    async def read_response(self, *, disconnect_on_error: bool = True) -> Any:
        answer = await self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def disconnect(self, *, nowait: bool) -> None:
        """Do nothing: there is no socket."""

    def identify(self, _: object) -> bool:
        """Return true: there is one server."""
        return True

    def distrust(self) -> None:
        """Do nothing: there is one server."""

    def end(self) -> None:
        """End the stream, as the server does."""
        self.ended = True
        self._answers.put_nowait(Disconnected("Connection closed by server"))
        self.when_ended()

    def _arrive(self, commands: list[tuple[Any, ...]], lost: bool) -> None:
        real, script = self._real, commands[0][0] == "EVAL"
        if lost or real.cut:
            return
        if real.true() < real.server.thaw_at:
            if script:
                real.later(real.server.thaw_at - real.true() + DELAY, self._arrive, commands, False)
            return
        if not real.server.up:
            real.later(DELAY, self.end)
            return
        time = real.server.set_clock(real.true())
        answers: list[Any] = []
        for command in commands:
            if command[0] == "TIME":
                answer: Any = (time // 1_000_000, time % 1_000_000)
            elif command[0] == "INFO":
                answer = "maxmemory_policy:noeviction"
            else:
                error = real.server.error
                answer = _parse_error(error) if error else real.run_script(command)
            answers.append(answer)
        real.later(DELAY, self._answered, answers)  # in one event, because timers of the same moment have no order

    def _answered(self, answers: list[Any]) -> None:
        for answer in answers:
            self._answers.put_nowait(answer)


class Real:
    """The parts that `sidecar.run` puts together, without sockets."""

    def __init__(self, seed: int, loop: VirtualLoop, *, follower: bool = False) -> None:
        self.notes = SidecarNotes()
        self.loop = loop
        self.server = Server("run1", rate=1.0, offset=EPOCH, born=-1000.0)
        self.cut = False
        uniform = Random(seed).uniform
        lease = Lease(
            ME, TIMINGS, boot="1", now=self.now(), uniform=uniform, require_client=True, campaign=not follower
        )
        store = RedisStore(
            lambda: cast("RedisConnection", Line(self)),
            ME,
            TIMINGS,
            clock=self.now,
            failover_guard=True,
            min_replicas=0,
        )
        self.candidate = Candidate(
            {NAME: lease},
            {NAME: NAME},
            store,
            TIMINGS,
            _Transitions(self.notes, self.now),
            clock=self.now,
            uniform=uniform,
        )
        self.control = Control(self.candidate, ME, PATIENT, boot="1", clock=self.now, status=dict, history=no_history)
        self._version = ""
        self._question: asyncio.Task[None] | None = None
        next_call = lease.next_call

        def observed(now: float) -> Call | None:
            call = next_call(now)
            if call is not None:
                self.notes.call(call)
            return call

        lease.next_call = observed  # type: ignore[method-assign]

    def now(self) -> float:
        return self.loop.time()

    def true(self) -> float:
        return self.loop.time() - START

    def later(self, seconds: float, happens: Callable[..., object], *arguments: object) -> None:
        self.loop.call_later(seconds, happens, *arguments)

    def run_script(self, command: tuple[Any, ...]) -> str:
        """The answer of the script of an EVAL, in the format of `prelude.lua`."""
        _, script, _, _, _, instance, ttl, deadline, guarding, token, tenure, floor, replicated, _, _ = command
        model, touched = self.server.model, self.server.model.touched
        if script == SCRIPTS["acquire"]:
            answer = model.acquire(instance, ttl, deadline, bool(guarding), tenure, bool(replicated))
        elif script == SCRIPTS["renew"]:
            answer = model.renew(instance, ttl, deadline, bool(guarding), token, tenure, floor, bool(replicated))
        elif script == SCRIPTS["relay"]:
            answer = model.relay(instance, bool(guarding))
        else:
            answer = model.release(instance, ttl, deadline, bool(guarding), token or None, tenure)
        if model.touched != touched:
            self.touched()
        words = (answer.outcome, answer.token or "-", answer.tenure or "-", answer.left, answer.time, answer.wait)
        watches = (WATCHERS, WATCHERS) if answer.outcome in COUNTING else "--"
        return " ".join(map(str, (*words, answer.guard, "-", "-", *watches, answer.holder or "")))

    def hang_up_server(self) -> None:
        """The server closes the connection, if no call uses it."""
        line = cast("Line | None", self.candidate._store._connection)
        if line is not None and self.candidate._under_way is None and not self.cut:
            self.later(DELAY, line.end)

    def touched(self) -> None:
        """The watch reports the change."""
        self.later(DELAY, self.notice)

    def ask(self, wait: float) -> None:
        if (self._question is None or self._question.done()) and self._runs():
            self._question = self.loop.create_task(self._ask(wait))

    async def _ask(self, wait: float) -> None:
        query = f"?wait={wait}&version={self._version}" if wait and self._version else ""
        request = make_mocked_request(
            "GET", f"/is-leader/{NAME}{query}", headers={"Host": "localhost"}, match_info={"lease": NAME}
        )
        response = await self.control._is_leader(request)
        assert isinstance(response.body, bytes)
        answer = json.loads(response.body)
        self._version = answer["version"]
        self.notes.answer(self.now(), answer["token"], answer["expires_in"])

    def hang_up(self) -> None:
        if self._question is not None:
            self._question.cancel()

    def resign(self) -> None:
        if self._runs():
            self.candidate.resigned(NAME, None, "")

    def notice(self) -> None:
        if self._runs():
            self.candidate.noticed(NAME)

    def relay_notice(self) -> None:
        if self._runs():
            self.candidate.relay_noticed(NAME)

    def step_down_notice(self) -> None:
        if self._runs():
            self.candidate.step_down_noticed(NAME)

    def drain(self) -> None:
        self.candidate.drain()

    def _runs(self) -> bool:
        return not self._election.done()

    async def run(self, schedule: Schedule, end: float) -> SidecarNotes:
        for when, happens in schedule:
            self.later(when, happens, self)
        self._election = asyncio.create_task(self.candidate.run())
        self._election.add_done_callback(lambda _: self.hang_up())  # the listener ends with the election
        await asyncio.sleep(end)
        for task in (self._election, self._question):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        return self.notes


async def no_history(_: str) -> list[Term]:
    """Return an empty history: the election does not use it, and no client of the simulation asks for it."""
    return []


class _Transitions(Telemetry):
    def __init__(self, notes: SidecarNotes, clock: Callable[[], float]) -> None:
        super().__init__(ME, clock=clock)
        self._notes = notes

    def transition(self, lease: str, transition: Transition) -> None:
        self._notes.transition(transition)
