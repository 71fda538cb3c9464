"""The rule that each end of a term has a cause. No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.history import Entry, Event

GRACE_MS = 3000
"""Time after a standstill of the machine for which a lost lead is its consequence: a grant and a retry."""


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


@dataclass(frozen=True)
class Lost:
    """A lead that was lost without a cause."""

    lease: str
    entry: Entry
    text: str


def lost_leads(histories: Mapping[str, Sequence[Entry]], causes: Causes) -> list[Lost]:
    """Return the terms that ended without a cause, in each lease's history; the entries are in order."""
    return [lost for lease, entries in histories.items() for lost in _lost(lease, entries, causes)]


def _lost(lease: str, entries: Sequence[Entry], causes: Causes) -> Iterable[Lost]:
    current: Entry | None = None
    for entry in entries:
        if entry.event is Event.ACQUIRE:
            if current is not None and current.token != entry.token and not causes.stood_still(entry.at):
                text = f"{current.holder} lost term {current.token} of {lease} without a release"
                yield Lost(lease, current, text)
            current = entry
            continue
        if current is not None and current.token == entry.token:
            current = None
        stopped_at = causes.stopped.get(entry.holder)
        caused = entry.token in causes.stepped_down or (stopped_at is not None and entry.at >= stopped_at)
        if not caused and not causes.stood_still(entry.at):
            why = f" ({entry.reason})" if entry.reason else ""
            yield Lost(lease, entry, f"{entry.holder} released term {entry.token} of {lease} without a cause{why}")


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
