"""The world of one task and the notes that the simulated and the real client of the differential test share."""

from collections.abc import Callable
from heapq import heappop
from math import inf
from random import Random
from typing import Any, Protocol, cast

from sidecar.protocol import Timings
from tests.simulation.candidate import Sidecar
from tests.simulation.driven import DELAY, ME, START
from tests.simulation.scenario import Scenario
from tests.simulation.store import Tenure
from tests.simulation.world import World

TTL = 30.0


class Notes:
    """The actions of a client in order, and their times. Tokens and names are numbered from 1."""

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
    """A generator whose numbers do not depend on earlier numbers: each lies at this `share` of its range."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def random(self) -> float:
        return self.share

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.share


class Bare(World):
    """One task and its Redis, without faults and oracles; the driver runs the events."""

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
        """The sidecar is not started again."""

    def work(self, client: object) -> None:
        """The client does not write."""

    def interrupt_write(self, client: object) -> None:
        """The client does not write."""

    def due(self) -> float:
        return self._queue[0][0] if self._queue else inf

    def step(self) -> None:
        self.now, _, action, argument = heappop(self._queue)
        self._nested = 0
        action(argument)


class Witness:
    """An oracle that creates tenures and checks nothing."""

    def began(self, client: object, holder: str, token: int) -> Tenure:
        return Tenure(holder, token, 0, doubtful=False)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Driven(Protocol):
    """A client that the test drives. A method that does not apply in the current state does nothing."""

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
"""Events and their times, in seconds from the start."""


def begin(driven: Driven, schedule: Schedule) -> None:
    """Start the sidecar and the client, and schedule the events."""
    for when, happens in schedule:
        driven.world.at(when, lambda happens: happens(driven), happens)
    driven.world.sidecar.start(ME)
    driven.start()
