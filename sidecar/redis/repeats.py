"""Which calls were surely not executed and may be made again at once, and where."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as Disconnected

from sidecar.protocol import Reply
from sidecar.redis.failures import Failure, OtherPrimary
from sidecar.server_kind import Node

_REFUSALS = (AskError, BusyLoadingError, ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError)
"""Refusals of a command that another server, or this one on a new connection, may not repeat; MOVED is an ASK."""
_ABOUT_ONE_KEY = ("ask", "crossslot", "moved", "noperm", "tryagain", "wrongtype")
"""Kinds of failures that say nothing of other keys: the server is well, and said all that it had to say."""
_FROM_INSIDE = re.compile(r"script: |user_script|running script")
"""Words of an error that a command inside a script raised: some of the script may have been executed."""


@dataclass(frozen=True, slots=True)
class NotExecuted(Failure):
    """A failure after which the call is known not to have been executed, and may be made again at once.

    `hop`: the node that the server named, if that is followed; `once`: for this call only (ASK).
    """

    hop: Node | None = None
    once: bool = False


def is_about_one_key(failure: Failure) -> bool:
    """Whether a failure says nothing of other keys."""
    return failure.kind in _ABOUT_ONE_KEY or (failure.kind == "clusterdown" and "not served" in failure.text)


def repeatable(results: Sequence[Reply | Failure], hops: int) -> list[int]:
    """Which calls are made again at once, at one node; after the first time only those that were sent on to it."""
    refused = {i: each for i, each in enumerate(results) if isinstance(each, NotExecuted) and (each.hop or not hops)}
    first = next(iter(refused.values()), None)
    return [i for i, each in refused.items() if first and (each.hop, each.once) == (first.hop, first.once)]


def not_executed(failure: Failure) -> NotExecuted:
    """The same failure of a call that was surely not executed."""
    return NotExecuted(failure.kind, failure.text, may_execute=False)


def could_not_connect(error: Exception) -> bool:
    """Whether the right server was not reached; one that refuses the password refuses it again."""
    lost = isinstance(error, (Disconnected, OSError, OtherPrimary)) and not isinstance(error, TimeoutError)
    return lost and not isinstance(error, AuthenticationError)


def refuses_command(error: Exception) -> bool:
    """Whether the reply refuses the EVAL itself, and not a command of its script."""
    return isinstance(error, _REFUSALS) and not _FROM_INSIDE.search(str(error))
