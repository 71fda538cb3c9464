"""The values in a row of the table, computed from the observations. Times are in seconds since the epoch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ops.rehearse.leaders import LEASES, Led
from ops.rehearse.load import Broken, Request
from tests.chaos.database import Accepted


@dataclass(frozen=True)
class Span:
    """A span of time from `began` to `ended`."""

    began: float
    ended: float

    def has(self, at: float) -> bool:
        """Return true if the time is in the span."""
        return self.began <= at < self.ended


@dataclass(frozen=True)
class Fault:
    """A fault of a task and its duration; an empty span is one instant."""

    task: str
    span: Span


@dataclass(frozen=True)
class Happened:
    """One event with its observations.

    Attributes:
        name: name of the event.
        span: from the event's beginning to the beginning of the next event.
        lossless: no request may fail.
        allowed: maximum time without a leader.
        healthy_after: time until all wanted tasks were healthy again; None if they never were.
        unwanted: spans from a scale to 0 until a task serves again; requests and missing leaders in them do not count.
        complaints: other problems, as text.
        faults: the faults of each task.
    """

    name: str
    span: Span
    lossless: bool
    allowed: float
    healthy_after: float | None
    unwanted: tuple[Span, ...] = ()
    complaints: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()


@dataclass
class Row:
    """One row of the table; times are in seconds."""

    name: str
    requests: int
    failed: int
    broken: int
    leaderless: float
    overlap: float
    healthy_after: float | None
    wrong: list[str] = field(default_factory=list)


def row(
    happened: Happened,
    requests: Iterable[Request],
    broken: Iterable[Broken],
    led: Sequence[Led],
    writes: Sequence[Accepted],
) -> Row:
    """Compute the row of an event, with its problems."""
    span = happened.span
    sent = [
        request
        for request in requests
        if span.has(request.at) and not any(touches(request, none) for none in happened.unwanted)
    ]
    failed = [request for request in sent if request.error is not None]
    found = Row(
        happened.name,
        requests=len(sent),
        failed=len(failed),
        broken=sum(span.has(each.at) for each in broken),
        leaderless=max(leaderless(led, lease, span, happened.unwanted) for lease in LEASES),
        overlap=max(overlap(writes, lease, span) for lease in LEASES),
        healthy_after=happened.healthy_after,
        wrong=list(happened.complaints),
    )
    if happened.lossless and failed:
        reasons = sorted({f"{request.error}" for request in failed})
        found.wrong.append(f"{len(failed)} requests failed ({', '.join(reasons)})")
    if found.overlap > 0:
        found.wrong.append(f"writers overlapped for {found.overlap:.3f} s")
    if found.leaderless > happened.allowed:
        found.wrong.append(f"nobody led for {found.leaderless:.1f} s; {happened.allowed:.1f} s are allowed")
    if happened.healthy_after is None:
        found.wrong.append("the service did not become healthy")
    return found


def leaderless(led: Iterable[Led], lease: str, span: Span, unwanted: Iterable[Span] = ()) -> float:
    """Return the longest time in the span in which no task led the lease although a task was wanted."""
    busy = [(one.began, one.ended) for one in led if one.lease == lease]
    busy += [(none.began, none.ended) for none in unwanted]
    longest, reached = 0.0, span.began
    for began, ended in sorted(busy):
        if ended <= span.began or began >= span.ended:
            continue
        longest = max(longest, began - reached)
        reached = max(reached, ended)
    return max(longest, span.ended - reached, 0.0)


def overlap(writes: Sequence[Accepted], lease: str, span: Span) -> float:
    """Return the time for which the database accepted writes of an older term after a write of a newer term.

    Args:
        writes: writes in the order of their commits.
        lease: lease of the writes.
        span: only late writes that are committed in this span count.
    """
    newest, since, longest = 0, 0.0, 0.0
    for write in writes:
        if write.lease != lease:
            continue
        if write.token > newest:
            newest, since = write.token, write.at
        elif write.token < newest and span.has(write.at):
            longest = max(longest, write.at - since, 1e-3)
    return longest


def touches(request: Request, none: Span) -> bool:
    """Return true if the request was under way during the span."""
    return request.at < none.ended and request.at + request.seconds > none.began


def windows(began: Sequence[float], ended: float) -> list[Span]:
    """Return the span of each event.

    A span lasts until the next event begins, or until `ended`, so that there are no gaps.
    """
    return [Span(first, second) for first, second in pairwise([*began, ended])]
