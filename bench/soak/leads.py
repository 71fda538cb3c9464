"""The rule that each end of a term has a cause. No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.history import Entry, Event
from sidecar.protocol import Reason

GRACE_MS = 1000
"""Time after a standstill of the machine for which a lost lead is its consequence: a grant and a retry."""
LATE = "", Reason.CLIENT_SILENT, Reason.DEADLINE, Reason.RESIGNED
"""The reasons with which a standstill can end a term: a late client resigns. It deletes no key, for example."""


@dataclass
class Causes:
    """What ends a term. Times are in ms since 1970; all processes share the machine's clock."""

    stepped_down: set[int] = field(default_factory=set)
    """Tokens of the terms that were asked to step down."""
    stopped: dict[str, float] = field(default_factory=dict)
    """When a task was told to stop, by its instance id."""
    standstills: list[tuple[float, float]] = field(default_factory=list)
    """From when until when the whole machine stood still."""

    def stood_still(self, at: float) -> bool:
        """Return true if the machine stood still at that time, or a moment before."""
        return any(began <= at <= ended + GRACE_MS for began, ended in self.standstills)

    @property
    def stood_still_for(self) -> float:
        """The ms in which the machine stood still; overlaps count once."""
        total = reached = 0.0
        for began, ended in sorted(self.standstills):
            total += max(0.0, ended - max(began, reached))
            reached = max(reached, ended)
        return total

    def explain(self, token: int, holder: str, at: float, *, late: bool) -> bool:
        """Return true if this term of this holder may end at that time; `late` if a standstill can end it so."""
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
    """The sidecar's reason; empty for an API, whose client only knows that its term is over."""


def lost_in_histories(histories: Mapping[str, Sequence[Entry]], causes: Causes) -> list[str]:
    """Return a line for each term that ended without a cause, by each lease's history; the entries are in order."""
    return [line for lease, entries in histories.items() for line in _lost(lease, entries, causes)]


def lost_in_logs(ends: Iterable[Ended], causes: Causes) -> list[str]:
    """Return a line for each term that ended without a cause, by the logs of sidecars and APIs.

    A candidate that gives up and is re-elected under the same token, and a client that stops its work while its sidecar
    leads, leave nothing in a history.
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
