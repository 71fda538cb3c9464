"""The simulator's sidecar in a separate world, with a client that the test drives."""

from collections.abc import Callable
from heapq import heappop
from random import Random
from typing import Any, cast

from sidecar.protocol import Call, Transition
from tests.simulation.candidate import TIMER, Sidecar
from tests.simulation.driven import DELAY, ME, PATIENT, START, TIMINGS, WATCHERS, Schedule, SidecarNotes
from tests.simulation.scenario import Scenario
from tests.simulation.server import Server
from tests.simulation.world import World


class Bare(World):
    """A world of one task without clients, faults and oracles."""

    def __init__(self, seed: int, notes: SidecarNotes, *, follower: bool) -> None:
        nature = Scenario(
            "bare", {}, 1e9, TIMINGS, 1, 1.0, (1.0,), "off", True, 0, True, follower=follower, watchers=WATCHERS
        )
        super().__init__(nature, Random(seed))
        self.random = Random(seed)
        self.notes = notes
        self.oracle = cast("Any", _Silent())

    def delay(self) -> float:
        return DELAY

    def changed(self, server: Server, *, released: bool) -> None:
        for sidecar in server.watchers:
            self.at(self.now + DELAY, sidecar.noticed, server)

    def transition(self, sidecar: Sidecar, transition: Transition) -> None:
        self.notes.transition(transition)

    def drained(self, sidecar: Sidecar) -> None:
        """The sidecar is not started again."""


class _Silent:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Observed(Sidecar):
    __slots__ = ()

    def choose_watch(self) -> None:
        """Do nothing: the test decides what the watch reports."""

    def _execute(self, call: Call) -> None:
        cast("Bare", self.world).notes.call(call)
        super()._execute(call)


class Simulated:
    """The sidecar and its client: one request at a time, held and answered as in `Control`."""

    def __init__(self, seed: int, *, follower: bool = False) -> None:
        self.notes = SidecarNotes()
        self.world = Bare(seed, self.notes, follower=follower)
        self.server = self.world.primary
        self.sidecar = Observed(self.world, 0, 1.0, START)
        self.sidecar.client = cast("Any", self)
        self.grant, self.name, self.token = None, "", None
        self.held = False
        self._question = 0
        self._arrived, self._then, self._ticket = 0.0, 0.0, 0
        self._version: tuple[int, int] | None = None
        self.sidecar.start(ME)
        self.sidecar.watched = self.server
        self.server.watchers.append(self.sidecar)

    @property
    def cut(self) -> bool:
        return self.sidecar.cut

    @cut.setter
    def cut(self, cut: bool) -> None:
        self.sidecar.cut = cut

    def now(self) -> float:
        return self.sidecar.now()

    def ask(self, wait: float) -> None:
        sidecar = self.sidecar
        if self.held or not sidecar.alive:
            return
        self._arrived = sidecar.now()
        self._then = wait if sidecar.asked(self._version) else 0.0
        if sidecar.lease.heard_from_redis():
            self._go_on()
        else:
            self._hold(PATIENT.call_limit)

    def _go_on(self) -> None:
        """Answer the request, or hold it as the client asked."""
        wait, self._then = self._then, 0.0
        if wait and (stands := self.sidecar.lease.answer_valid_for(self.sidecar.now(), self.name, self.token)):
            self._hold(min(wait, stands))
        else:
            self._answer()

    def _hold(self, wait: float) -> None:
        self._ticket = self.sidecar.lease.hold()
        self.held = True
        self._question += 1
        self.world.at(self.world.now + wait + TIMER, self._hold_ends, self._question)

    def _hold_ends(self, question: int) -> None:
        if self.held and question == self._question:
            self._unhold(answered=True)
            self._go_on()

    def release(self, *, answered: bool) -> None:
        self._unhold(answered=answered)
        if answered:
            self._answer()

    def _unhold(self, *, answered: bool) -> None:
        self.held = False
        sidecar = self.sidecar
        sidecar.lease.unhold(self._ticket, sidecar.now(), answered=answered)
        if sidecar.lease.wake_at(sidecar.now()) < sidecar.asleep_until:
            sidecar.wake()

    def _answer(self) -> None:
        token, expires_in, self._version = self.sidecar.grant(self._arrived)
        self.notes.answer(self.now(), token, expires_in)

    def hang_up_server(self) -> None:
        self.sidecar.hung_up()

    def touched(self) -> None:
        self.world.changed(self.server, released=False)

    def hang_up(self) -> None:
        if self.held:
            self.release(answered=False)

    def resign(self) -> None:
        if self.sidecar.alive:
            self.sidecar.resigned((None, "", None))

    def notice(self) -> None:
        self.sidecar.noticed(self.server)

    def relay_notice(self) -> None:
        self.sidecar.relay_noticed(self.server)

    def step_down_notice(self) -> None:
        self.sidecar.step_down_noticed(self.server)

    def drain(self) -> None:
        self.sidecar.drain()

    def nothing(self, *_: object) -> None:
        """Ignore an event for the simulator's client."""

    sync = schedule_end_of_work = sidecar_thawed = resign_answered = found_sidecar = nothing

    def lost_sidecar(self) -> None:
        self.held = False

    def run(self, schedule: Schedule, end: float) -> SidecarNotes:
        for when, happens in schedule:
            self.world.at(when, lambda happens: happens(self), happens)
        while self.world._queue and self.world._queue[0][0] <= end:
            self.world.now, _, action, argument = heappop(self.world._queue)
            self.world._nested = 0
            action(argument)
        for transition in self.sidecar.lease.transitions():  # transitions that changed no answer
            self.notes.transition(transition)
        return self.notes
