"""The interface and the notes that the simulated and the real sidecar of the differential test share."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from sidecar.protocol import Call, Kind, Timings, Transition
from tests.simulation.server import Server

TIMINGS = Timings()
PATIENT = replace(TIMINGS, call_limit=2.0013)
"""Timings of `Control`, whose limit for a call differs slightly from the candidate's.

With equal limits, the first call and a request that waits for its reply would time out at the same moment.
"""
START = 1000.0
"""The task's clock at the start."""
DELAY = 0.00037
"""Seconds that a message to or from Redis takes: with this value no two events coincide."""
WATCHERS = 20
"""The number of candidates that the scripts report: a large fleet, whose calls are spread."""
NAME, ME = "lease", "a"


@dataclass
class SidecarNotes:
    """The calls, transitions and answers of a sidecar.

    Tokens are numbered from 1, because their values are times and may differ.
    """

    calls: list[tuple[Kind, int | None, str]] = field(default_factory=list)
    transitions: list[tuple[bool, int | None, str]] = field(default_factory=list)
    answers: list[tuple[bool, int | None]] = field(default_factory=list)
    called_at: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    """The time of each answer, and its `expires_in`."""
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
    """A sidecar that the test drives, and the events that the test can cause."""

    notes: SidecarNotes
    server: Server
    cut: bool

    def now(self) -> float: ...
    def ask(self, wait: float) -> None: ...
    def hang_up(self) -> None: ...
    def resign(self) -> None: ...
    def notice(self) -> None: ...
    def relay_notice(self) -> None: ...
    def step_down_notice(self) -> None: ...
    def hang_up_server(self) -> None: ...
    def touched(self) -> None: ...
    def drain(self) -> None: ...


Happening = Callable[[Driven], None]
Schedule = list[tuple[float, Happening]]
"""Events and their times, in seconds from the start."""
