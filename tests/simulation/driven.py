"""What the simulated sidecar and the real one are compared by: one handle for both, and notes of what each does."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from sidecar.election.protocol import Call, Kind, Timings, Transition
from tests.simulation.server import Server

TIMINGS = Timings()
PATIENT = replace(TIMINGS, call_limit=2.0013)
"""Of the listener: else the first call and the question that waits for it would be given up at the same moment."""
START = 1000.0
"""What the task's clock shows at the beginning."""
DELAY = 0.00037
"""What a message to or from Redis takes, in seconds: with it no two events fall together by their nature."""
NAME, ME = "lease", "a"


@dataclass
class Told:
    """What one of both has done and said. Tokens are counted from 1: they are times, and so not quite equal."""

    calls: list[tuple[Kind, int | None, str]] = field(default_factory=list)
    transitions: list[tuple[bool, int | None, str]] = field(default_factory=list)
    answers: list[tuple[bool, int | None]] = field(default_factory=list)
    called_at: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    """Of each answer, when it was given, and its `expires_in`."""
    _tokens: list[int] = field(default_factory=list)

    def call(self, call: Call) -> None:
        self.calls.append((call.kind, self._nth(call.token), call.tenure))
        self.called_at.append(call.sent_at)

    def transition(self, transition: Transition) -> None:
        self.transitions.append((transition.leads, self._nth(transition.token), transition.reason))

    def answer(self, now: float, token: int | None, expires_in: float | None) -> None:
        self.answers.append((expires_in is not None, self._nth(token)))
        self.answered += [now, expires_in or 0.0]

    def _nth(self, token: int | None) -> int | None:
        if token is None:
            return None
        if token not in self._tokens:
            self._tokens.append(token)
        return self._tokens.index(token) + 1


class Driven(Protocol):
    """One of both, and what happens to it."""

    told: Told
    server: Server
    cut: bool

    def now(self) -> float: ...
    def ask(self, wait: float) -> None: ...
    def hang_up(self) -> None: ...
    def resign(self) -> None: ...
    def notice(self) -> None: ...
    def hang_up_server(self) -> None: ...
    def touched(self) -> None: ...
    def drain(self) -> None: ...


Happening = Callable[[Driven], None]
Schedule = list[tuple[float, Happening]]
"""What happens, and when, in seconds from the beginning."""
