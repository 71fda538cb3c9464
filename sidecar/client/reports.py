"""The sidecar's reports for people: the state of its leases, and the last terms of a lease.

Nothing here grants leadership. A report that breaks the contract raises `Unknown`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sidecar.client.unknown import Unknown

LONGEST_REPORT = 256 * 1024
"""Limit of a valid report's body, in bytes."""
LONGEST_ERROR = 300
"""Limit of a sidecar's error that is quoted in a message, in characters."""
LONGEST_TIME = 2**31
"""Limit of a valid time, in seconds."""

End = Literal["released", "not released", "holding"]


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """A lease as the sidecar of this task sees it.

    `token` and `remaining` are about the sidecar's own term; `remaining` is 0 seconds without one. `trouble` says what
    is wrong with the lease, or is None.

    `holder_remaining` is the number of seconds until the holder's lease ends unless it is renewed. `step_down` is a
    line about a step-down that this sidecar carries out. Each of these two fields is None if it does not apply, or if
    the sidecar is of an older version.
    """

    state: str
    is_leader: bool
    holder: str | None
    token: int | None
    remaining: float
    trouble: str | None
    holder_remaining: float | None = None
    step_down: str | None = None


@dataclass(frozen=True, slots=True)
class SidecarReport:
    """The sidecar of this task, and its leases by name."""

    instance_id: str
    leases: Mapping[str, LeaseReport]


@dataclass(frozen=True, slots=True)
class PastTerm:
    """A term of a lease, in any task. The last term may still be running.

    `end` is `holding` while the holder has the lease, `released` if the holder gave the lease up, and `not released`
    otherwise: for example, the lease expired or was deleted. `released_at` is None unless `end` is `released`.
    """

    token: int
    holder: str
    acquired_at: datetime
    released_at: datetime | None
    end: End
    reason: str | None


def parse_status(body: bytes) -> SidecarReport:
    """Check the answer to a `GET /status`.

    Raises:
        Unknown: the answer breaks the contract.
    """
    match _json(body):
        case {"instance_id": str(instance_id), "leases": dict(leases)}:
            return SidecarReport(instance_id, {name: _lease(lease) for name, lease in leases.items()})
    raise _wrong_shape()


def parse_history(body: bytes, name: str) -> list[PastTerm]:
    """Check the answer to a `GET /history/NAME`. Returns the newest term first.

    Raises:
        Unknown: the answer breaks the contract.
    """
    match _json(body):
        case {"lease": str(lease), "terms": list(terms)}:
            if lease != name:
                raise Unknown("the answer is about another lease")
            return [_term(term) for term in terms]
    raise _wrong_shape()


def explanation(body: bytes) -> str:
    """The error in the body of an answer, after a colon; empty if the body has no short line for people."""
    try:
        match _json(body):
            case {"error": str(error)} if error.isprintable() and len(error) <= LONGEST_ERROR:
                return f": {error}"
    except Unknown:
        pass
    return ""


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # the latter from thousands of brackets
        raise Unknown("the answer is not JSON") from None


def _lease(content: object) -> LeaseReport:
    match {"holder_remaining": None, "step_down": None, **content} if isinstance(content, dict) else content:
        case {
            "state": str(state),
            "is_leader": bool(is_leader),
            "holder": (str() | None) as holder,
            "token": token,
            "remaining": remaining,
            "trouble": (str() | None) as trouble,
            "holder_remaining": holder_remaining,
            "step_down": (str() | None) as step_down,
        }:
            own = None if token is None else _token(token)
            theirs = None if holder_remaining is None else _seconds(holder_remaining)
            return LeaseReport(state, is_leader, holder, own, _seconds(remaining), trouble, theirs, step_down)
    raise _wrong_shape()


def _term(content: object) -> PastTerm:
    match content:
        case {
            "token": token,
            "holder": str(holder),
            "acquired_at": str(acquired_at),
            "released_at": (str() | None) as released_at,
            "end": ("released" | "not released" | "holding") as end,
            "reason": (str() | None) as reason,
        }:
            left = None if released_at is None else _instant(released_at)
            return PastTerm(_token(token), holder, _instant(acquired_at), left, end, reason)
    raise _wrong_shape()


def _token(value: object) -> int:
    if type(value) is not int or not 0 < value < 2**63:  # in Python true is an int
        raise Unknown("the answer's token is not a positive integer of 63 bits")
    return value


def _seconds(value: object) -> float:
    # `type` and not `isinstance`: in Python true is an int. NaN fails the comparison.
    if (type(value) is not int and type(value) is not float) or not 0 <= value < LONGEST_TIME:
        raise Unknown(f"a remaining time in the answer is not a number of seconds below {LONGEST_TIME}")
    return value


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise Unknown("a time in the answer is not ISO 8601") from None
    if instant.tzinfo is None:
        raise Unknown("a time in the answer has no time zone")
    return instant


def _wrong_shape() -> Unknown:
    return Unknown("the answer lacks a field, or has a field of a wrong type")
