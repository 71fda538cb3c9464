"""The checks of the promises. Each oracle is a pure function of the observations.

The beliefs of two clients may overlap only if an operator deleted the key during the older term. In that case
docs/protocol.md still promises that stale writes are refused. `stale_writes` checks this promise in every case.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.database import Accepted
from tests.chaos.observers import Belief, Refusal


@dataclass(frozen=True)
class Violation:
    """A broken promise: the law, a description in one line, and the time (CLOCK_BOOTTIME) if it is known."""

    law: str
    text: str
    at: float | None = None


@dataclass(frozen=True)
class Deletion:
    """An operator's DEL of a lease's key, executed between `since` and `until`."""

    lease: str
    since: float
    until: float


@dataclass(frozen=True)
class Overlap:
    """Two clients that both believed for `seconds` that they led."""

    older: Belief
    newer: Belief
    seconds: float


def overlaps(beliefs: Iterable[Belief]) -> list[Overlap]:
    """Return the overlaps of beliefs in one lease."""
    found = []
    by_lease: defaultdict[str, list[Belief]] = defaultdict(list)
    for belief in sorted(beliefs, key=lambda belief: belief.began):
        for other in by_lease[belief.lease]:
            if belief.began < other.end and belief.end > other.began:
                older, newer = sorted((other, belief), key=lambda one: (one.token, one.began))
                found.append(Overlap(older, newer, min(belief.end, other.end) - belief.began))
        still = [other for other in by_lease[belief.lease] if other.end > belief.began]
        by_lease[belief.lease] = [*still, belief]
    return found


def excused(overlap: Overlap, deletions: Iterable[Deletion], boot: float) -> bool:
    """Return true if an operator may have deleted the key during the older term, before the newer belief began.

    `boot` is the epoch time of CLOCK_BOOTTIME 0.
    """
    older, newer = overlap.older, overlap.newer
    won = min(older.began, older.token / 1e6 - boot)  # the token contains the time of the acquire in Redis
    return any(
        deletion.lease == older.lease and deletion.since <= newer.began and deletion.until >= won
        for deletion in deletions
    )


def two_believers(beliefs: Iterable[Belief], deletions: Sequence[Deletion], boot: float) -> list[Violation]:
    """No two clients believe at the same instant that they lead one lease."""
    return [
        Violation(
            "two believers",
            f"{overlap.older.lease}: {overlap.newer.task} (token {overlap.newer.token}) and {overlap.older.task} (token"
            f" {overlap.older.token}) both believed for {overlap.seconds:.3f} s",
            max(overlap.older.began, overlap.newer.began),
        )
        for overlap in overlaps(beliefs)
        if not excused(overlap, deletions, boot)
    ]


def stale_writes(writes: Iterable[Accepted], boot: float) -> list[Violation]:
    """The tokens of accepted writes never decrease. `writes` are in commit order."""
    newest: dict[str, int] = {}
    found = []
    for write in writes:
        if write.token < newest.get(write.lease, 0):
            found.append(
                Violation(
                    "stale write",
                    f"{write.lease}: a write of token {write.token} ({write.via}) was accepted after one of token"
                    f" {newest[write.lease]}",
                    write.at - boot,
                )
            )
        newest[write.lease] = max(newest.get(write.lease, 0), write.token)
    return found


def forged_writes(writes: Iterable[Accepted], beliefs: Iterable[Belief]) -> list[Violation]:
    """Every accepted write carries the token of a term in which some client believed that it led."""
    known = {(belief.lease, belief.token) for belief in beliefs}
    return [
        Violation("unknown token", f"{write.lease}: a write of token {write.token}, which no client was granted")
        for write in writes
        if (write.lease, write.token) not in known
    ]


def leaders_refused(refusals: Iterable[Refusal], beliefs: Sequence[Belief]) -> list[Violation]:
    """The database refuses a write only if a client began to believe in a newer term before the refusal."""
    return [
        Violation(
            "leader refused",
            f"{refusal.lease}: a write of {refusal.task}, token {refusal.token}, was refused; no newer term had begun",
            refusal.at,
        )
        for refusal in refusals
        if not any(
            belief.lease == refusal.lease and belief.token > refusal.token and belief.began < refusal.at
            for belief in beliefs
        )
    ]


def tokens_shared(beliefs: Iterable[Belief]) -> list[Violation]:
    """Each token belongs to one holder."""
    holders: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for belief in beliefs:
        holders[belief.lease, belief.token].add(belief.holder)
    return [
        Violation("token given twice", f"{lease}: token {token} was given to {' and '.join(sorted(names))}")
        for (lease, token), names in holders.items()
        if len(names) > 1
    ]


def sidecars_unhealthy(
    unhealthy: Iterable[tuple[float, str, str]], frozen: Iterable[tuple[str, float, float]], patience: float
) -> list[Violation]:
    """A fault of Redis never makes a sidecar unhealthy, since the platform would restart the whole fleet.

    Args:
        unhealthy: the time, the container (`task1/sidecar`) and the message of each report.
        frozen: the task, the start and the end of each freeze of a sidecar, which may be unhealthy during the freeze.
        patience: seconds after a freeze in which the platform may still react to it.
    """
    spans = list(frozen)
    return [
        Violation("sidecar unhealthy", f"{who} {text}", at)
        for at, who, text in unhealthy
        if who.endswith("/sidecar")
        and not any(who == f"{task}/sidecar" and began <= at <= ended + patience for task, began, ended in spans)
    ]


def tracebacks(logs: Mapping[str, Iterable[str]]) -> list[Violation]:
    """No fault causes an unexpected error in a program.

    This oracle also finds work that always fails at once: such work writes nothing, and breaks no other promise.

    Args:
        logs: the lines of each container's log, by its name.
    """
    found = []
    for who, lines in logs.items():
        ends: list[str] = []
        inside = False
        for line in lines:
            if line.startswith("Traceback "):
                inside = True
            elif inside and not line.startswith(" "):
                ends.append(line.strip())
                inside = False
        found += [Violation("traceback", f"{who}: {end} ({ends.count(end)} times)") for end in dict.fromkeys(ends)]
    return found
