"""What the simulated client and the real one are compared by: a world of one task, and notes of what each does."""

from collections.abc import Callable
from heapq import heappop
from math import inf
from random import Random
from typing import Any, Protocol, cast

from sidecar.election.protocol import Timings
from tests.simulation.candidate import Sidecar
from tests.simulation.driven import DELAY, ME, START
from tests.simulation.scenario import Scenario
from tests.simulation.store import Tenure
from tests.simulation.world import World

TTL = 30.0


class Notes:
    """What one of both did, one after the other, and when. Tokens, versions and names are counted from 1."""

    def __init__(self) -> None:
        self.what: list[tuple[object, ...]] = []
        self.when: list[tuple[float, ...]] = []
        self._seen: dict[str, list[object]] = {}

    def note(self, now: float, what: str, *more: object, times: tuple[float, ...] = ()) -> None:
        self.what.append((what, *more))
        self.when.append((now, *times))

    def nth(self, kind: str, thing: object) -> int | None:
        if thing is None:
            return None
        seen = self._seen.setdefault(kind, [])
        if thing not in seen:
            seen.append(thing)
        return seen.index(thing) + 1


class Fixed(Random):
    """Draws that do not depend on how many there were before: each is this `share` of what is possible."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def random(self) -> float:
        return self.share

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.share


class Bare(World):
    """One task and its Redis, without faults and oracles; `run` is left to whoever drives it."""

    def __init__(self, share: float, grant_ttl: float) -> None:
        timings = Timings(TTL, TTL / 3, grant_ttl, TTL / 15)
        super().__init__(Scenario("bare", {}, 1e9, timings, 1, 1.0, (1.0,), "tracking", True, 0, True), Random(0))
        self.random = Fixed(share)
        self.oracle = cast("Any", Witness())
        self.sidecar: Sidecar = self.sidecars[0]
        self.sidecar.clock = START

    def delay(self) -> float:
        return DELAY

    def drained(self, sidecar: Sidecar) -> None:
        """It is not started again by itself."""

    def work(self, client: object) -> None:
        """It does not write."""

    def interrupt_write(self, client: object) -> None:
        """It does not write."""

    def due(self) -> float:
        """When something will happen next."""
        return self._queue[0][0] if self._queue else inf

    def step(self) -> None:
        """Let it happen."""
        self.now, _, action, argument = heappop(self._queue)
        self._nested = 0
        action(argument)


class Witness:
    """Keeps the tenures apart, and judges nothing."""

    def began(self, client: object, holder: str, token: int) -> Tenure:
        return Tenure(holder, token, 0, doubtful=False)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Driven(Protocol):
    """One of both, and what may happen to it. What cannot happen to it now does not."""

    world: Bare
    notes: Notes

    def start(self) -> None: ...
    def kill(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def leave(self) -> None: ...
    def start_over(self) -> None: ...
    def look(self) -> None: ...


Happening = Callable[[Driven], None]
Schedule = list[tuple[float, Happening]]
"""What happens, and when, in seconds from the beginning."""


def begin(driven: Driven, schedule: Schedule) -> None:
    """Start the sidecar and the client, and let it all happen to them in time."""
    for when, happens in schedule:
        driven.world.at(when, lambda happens: happens(driven), happens)
    driven.world.sidecar.start(ME)
    driven.start()
