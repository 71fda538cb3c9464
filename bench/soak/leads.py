"""The rule that each end of a term has a cause. No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.history import Entry, Event
from sidecar.protocol import Reason

GRACE_MS = 1000
"""Time after a standstill, in ms, in which the end of a term counts as a consequence of the standstill.

This time covers a grant and a retry.
"""
LATE = "", Reason.CLIENT_SILENT, Reason.DEADLINE, Reason.RESIGNED
"""Reasons of an end that a standstill can cause, such as a client that resigns late.

The deletion of a key is not among them: no standstill deletes a key.
"""


@dataclass
class Causes:
    """The causes for the end of a term. Times are in ms since 1970; all processes share the machine's clock."""

    stepped_down: set[int] = field(default_factory=set)
    """Tokens of the terms that were asked to step down."""
    stopped: dict[str, float] = field(default_factory=dict)
    """Time of the stop of each task, by its instance id."""
    standstills: list[tuple[float, float]] = field(default_factory=list)
    """Start and end of each standstill of the machine."""

    def stood_still(self, at: float) -> bool:
        """Return true if the machine stood still at that time, or less than `GRACE_MS` before."""
        return any(began <= at <= ended + GRACE_MS for began, ended in self.standstills)

    @property
    def stood_still_for(self) -> float:
        """Milliseconds in which the machine stood still; overlaps count once."""
        total = reached = 0.0
        for began, ended in sorted(self.standstills):
            total += max(0.0, ended - max(began, reached))
            reached = max(reached, ended)
        return total

    def explain(self, token: int, holder: str, at: float, *, late: bool) -> bool:
        """Return true if this term of this holder may end at that time. With `late`, a standstill counts as a cause."""
        stopped_at = self.stopped.get(holder)
        stopped = stopped_at is not None and at >= stopped_at
        return token in self.stepped_down or stopped or (late and self.stood_still(at))


@dataclass(frozen=True)
class Ended:
    """The end of a term in a container's log; `at` is in ms since 1970."""

    where: str
    lease: str
    token: int
    holder: str
    at: float
    reason: str = ""
    """The sidecar's reason; empty for an API, whose client gets no reason."""


def lost_in_histories(histories: Mapping[str, Sequence[Entry]], causes: Causes) -> list[str]:
    """Return a line for each term in the histories that ended without a cause; the entries are in order."""
    return [line for lease, entries in histories.items() for line in _lost(lease, entries, causes)]


def lost_in_logs(ends: Iterable[Ended], causes: Causes) -> list[str]:
    """Return a line for each term in the logs of sidecars and APIs that ended without a cause.

    The histories do not show two kinds of ends: a candidate gives up and is re-elected under the same token, or a
    client stops its work while its sidecar leads.
    """
    return [
        f"{end.where}: term {end.token} of {end.lease} ended without a cause{f' ({end.reason})' if end.reason else ''}"
        for end in ends
        if not causes.explain(end.token, end.holder, end.at, late=end.reason in LATE)
    ]


def _lost(lease: str, entries: Sequence[Entry], causes: Causes) -> Iterable[str]:
    current: Entry | None = None
    for entry in entries:
        if entry.event is Event.ACQUIRE:
            if current is not None and current.token != entry.token and not causes.stood_still(entry.at):
                yield f"{current.holder} lost term {current.token} of {lease} without a release"
            current = entry
            continue
        if current is not None and current.token == entry.token:
            current = None
        if not causes.explain(entry.token, entry.holder, entry.at, late=True):
            why = f" ({entry.reason})" if entry.reason else ""
            yield f"{entry.holder} released term {entry.token} of {lease} without a cause{why}"


def gaps(entries: Sequence[Entry]) -> list[float]:
    """Return the milliseconds from each release to the next acquire, by Redis's clock."""
    found: list[float] = []
    released: Entry | None = None
    for entry in entries:
        if entry.event is Event.RELEASE:
            released = entry
        elif released is not None:
            found.append(float(entry.at - released.at))
            released = None
    return found
