"""Rules for calls that were certainly not executed: which calls may be repeated at once, and at which node."""

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
"""Refusals of a command. The same call may succeed at another server or on a new connection.

AskError includes MOVED: the class `MovedError` of redis-py is a subclass.
"""
_ABOUT_ONE_KEY = ("ask", "crossslot", "moved", "noperm", "tryagain", "wrongtype")
"""Kinds of failures that concern one key only: the server works, and its reply is complete."""
_FROM_INSIDE = re.compile(r"script: |user_script|running script")
"""Words in an error that a command inside a script raised. Part of such a script may have been executed."""


@dataclass(frozen=True, slots=True)
class NotExecuted(Failure):
    """A failure of a call that was certainly not executed, and that may be repeated at once.

    `hop`: the node that the server named, if the place follows redirects; `once`: the redirect is for this call only
    (ASK).
    """

    hop: Node | None = None
    once: bool = False


def is_about_one_key(failure: Failure) -> bool:
    """Whether a failure concerns one key only."""
    return failure.kind in _ABOUT_ONE_KEY or (failure.kind == "clusterdown" and "not served" in failure.text)


def repeatable(results: Sequence[Reply | Failure], hops: int) -> list[int]:
    """Indices of the calls to repeat at once, all at one node.

    `hops` is the number of repetitions so far. After the first repetition, only redirected calls are repeated.
    """
    refused = {i: each for i, each in enumerate(results) if isinstance(each, NotExecuted) and (each.hop or not hops)}
    first = next(iter(refused.values()), None)
    return [i for i, each in refused.items() if first and (each.hop, each.once) == (first.hop, first.once)]


def not_executed(failure: Failure) -> NotExecuted:
    """The failure, marked as the failure of a call that was certainly not executed."""
    return NotExecuted(failure.kind, failure.text, may_execute=False)


def could_not_connect(error: Exception) -> bool:
    """Whether the right server was not reached. A refused password does not count: the server would refuse it again."""
    lost = isinstance(error, (Disconnected, OSError, OtherPrimary)) and not isinstance(error, TimeoutError)
    return lost and not isinstance(error, AuthenticationError)


def refuses_command(error: Exception) -> bool:
    """Whether the reply refuses the EVAL itself, and not a command of its script."""
    return isinstance(error, _REFUSALS) and not _FROM_INSIDE.search(str(error))
