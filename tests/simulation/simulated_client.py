"""The simulator's client in a separate world, with notes of its actions."""

from math import ceil

from sidecar.client.sidecar_api import PAUSE
from tests.simulation.client import Client, HeardAnswer
from tests.simulation.client_driven import Bare, Notes, Schedule, begin


class Observed(Client):
    """The simulated client with notes.

    In the simulation, a client without a sidecar asks next at a random time. This class asks after a whole number of
    pauses, as the real client does.
    """

    __slots__ = ("froze_at", "notes", "quiet", "retried_at")

    def __init__(self, world: Bare, notes: Notes) -> None:
        super().__init__(world, world.sidecar)
        self.notes = notes
        self.quiet = False
        """Whether the last answer changed nothing: the next request only continues the wait, and is not noted."""
        self.retried_at = self.froze_at = 0.0

    def _send(self, number: int) -> None:
        if (self.sidecar.alive or self.grant is not None) and not self.quiet:
            names = self.notes.nth("token", self.token), self.notes.nth("client", self.name)
            self.notes.note(self.world.now, "asks", self._version is not None, *names)
        self.quiet = False
        super()._send(number)

    def _hear(self, heard: HeardAnswer) -> None:
        if heard[0] == self._ask and self.running and not self.frozen:
            self.quiet = heard[5] == self._version and self.sidecar.now() < self._gives_up_at
        super()._hear(heard)

    def _begin(self, heard: HeardAnswer) -> bool:
        begun = super()._begin(heard)
        if begun:
            self.quiet = False
            self.notes.note(self.world.now, "begins", self.notes.nth("token", self.token))
        return begun

    def _ended(self, life: int) -> None:
        if life == self.life and self._stopping and not self.frozen:
            self.notes.note(self.world.now, "ended")
        super()._ended(life)

    def _finished(self, life: int) -> None:
        self.quiet = False
        if self.sidecar.alive and not self._resigning:
            token = None if self.leaves else self._resigned_term
            self.notes.note(self.world.now, "resigns", self.notes.nth("token", token))
        super()._finished(life)

    def _resigns_again(self, life: int) -> None:
        if self.sidecar.alive:
            self.notes.note(self.world.now, "resigns", self.notes.nth("token", self._resigned_term))
        super()._resigns_again(life)

    def _retry(self) -> None:
        self.quiet = False
        self.retried_at = self.world.now
        super()._retry()

    def freeze(self) -> None:
        self.froze_at = self.world.now
        super().freeze()

    def thaw(self) -> None:
        if self.running and self.frozen and self._next_attempt_at(self.froze_at) <= self.world.now:
            self.retried_at = self.world.now
        super().thaw()

    def found_sidecar(self) -> None:
        if self._knocks == self._ask:
            knock = self._next_attempt_at(self.froze_at if self.frozen else self.world.now)
            self.world.at(max(knock, self.world.now), self.ask, self._ask)

    def _next_attempt_at(self, now: float) -> float:
        pause = self.world.random.uniform(*PAUSE)
        return self.retried_at + ceil((now - self.retried_at) / pause) * pause


class Simulated:
    """The simulated client."""

    def __init__(self, share: float, grant_ttl: float) -> None:
        self.notes = Notes()
        self.world = Bare(share, grant_ttl)
        self.client = self.world.sidecar.client = Observed(self.world, self.notes)

    def start(self) -> None:
        if not self.client.running:
            self.client.start()

    def kill(self) -> None:
        self.client.kill()

    def freeze(self) -> None:
        if self.client.running and not self.client.frozen:
            self.client.freeze()

    def thaw(self) -> None:
        self.client.thaw()

    def leave(self) -> None:
        self.client.leave()

    def start_over(self) -> None:
        client = self.client
        if client.running and not client.frozen and client.believes:
            client.stop(over=False)

    def look(self) -> None:
        client, now = self.client, self.world.now
        client.sync()
        until = client.until()
        token = client.tenure.token if client.tenure is not None and until else None
        times = (client._asked_at, client._wait) if client._open else ()
        self.notes.note(
            now,
            "looks",
            self.notes.nth("token", token),
            client.working,
            client._open,
            times=(until, *times),
        )

    def run(self, schedule: Schedule, end: float) -> Notes:
        begin(self, schedule)
        while self.world.due() <= end:
            self.world.step()
        return self.notes
