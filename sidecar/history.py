"""The history of a lease as terms: who held it, from when to when, and why each term ended.

The scripts append two events to a stream: `acquire` when a term begins, and `release` when its holder gives it up. No
script runs at a crash, an operator's DEL or an expiry: a term that ends in such a way has no release.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

MOST_TERMS = 100
"""Maximum number of terms that are shown."""
LONGEST = 64
"""Limit of a reason, in characters."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_999
"""The end of the year 9999 in ms, the last time that a `datetime` holds."""


class Event(StrEnum):
    """The events of a history."""

    ACQUIRE = "acquire"
    RELEASE = "release"


class End(StrEnum):
    """How a term ended.

    `NOT_RELEASED`: the holder crashed, an operator deleted or overwrote the key, the key expired, or the release was
    not recorded.
    """

    RELEASED = "released"
    NOT_RELEASED = "not released"
    HOLDING = "holding"


class Entry(NamedTuple):
    """One entry of the stream. `at` is in ms of Redis's clock since 1970."""

    at: int
    event: Event
    token: int
    holder: str
    reason: str = ""


class Term(NamedTuple):
    """One term, with times of Redis's clock. `reason` is None unless the holder gave a reason with its release."""

    token: int
    holder: str
    acquired_at: datetime
    released_at: datetime | None
    end: End
    reason: str | None

    def as_json(self) -> dict[str, Any]:
        """The term as `GET /history/NAME` and `history --json` show it."""
        return {
            "token": self.token,
            "holder": self.holder,
            "acquired_at": _iso(self.acquired_at),
            "released_at": None if self.released_at is None else _iso(self.released_at),
            "end": str(self.end),
            "reason": self.reason,
        }


def entry_of(identifier: str, event: str, token: str, holder: str, reason: str) -> Entry | None:
    """The entry with these texts; None if no script of this project wrote them."""
    at = re.fullmatch(r"([0-9]{1,15})-[0-9]{1,20}", identifier)
    usable = at and int(at[1]) <= _LAST_MS and event in set(Event) and re.fullmatch(r"[0-9]{1,16}", token) and holder
    if not (at and usable):
        return None
    return Entry(int(at[1]), Event(event), int(token), holder, reason[:LONGEST])


def terms_of(entries: Iterable[Entry], holder: str | None, token: int | None) -> list[Term]:
    """The terms of a lease, newest first, at most `MOST_TERMS`.

    Args:
        entries: the entries, newest first. A release without an acquire is left out: the stream may have been trimmed
            since, or a sidecar of an older version, which appends nothing, made the acquire.
        holder: the value of the lease's key; None without a key.
        token: the token in the lease's fence; None without a fence.
    """
    terms: list[Term] = []
    releases: dict[int, Entry] = {}
    for entry in entries:
        if entry.event is Event.RELEASE:
            releases[entry.token] = entry
            continue
        if terms and terms[-1].token == entry.token:
            terms.pop()  # a term that was recorded twice began with the older entry
        if len(terms) == MOST_TERMS:
            break
        release = releases.get(entry.token)
        holds = not terms and (entry.holder, entry.token) == (holder, token)
        end = End.RELEASED if release else End.HOLDING if holds else End.NOT_RELEASED
        terms.append(
            Term(
                entry.token,
                entry.holder,
                _time(entry.at),
                None if release is None else _time(release.at),
                end,
                (release.reason or None) if release else None,
            )
        )
    return terms


def _time(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _iso(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03}Z"
