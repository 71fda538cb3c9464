"""Reasons why a call to Redis got no reply: a label for metrics, and a line for people."""

import re
from asyncio import CancelledError
from collections.abc import Sequence
from dataclasses import dataclass

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from runtime.escape import one_line

_CODES = re.compile(
    r"\b(READONLY|LOADING|MASTERDOWN|BUSY|OOM|NOAUTH|NOPERM|CLUSTERDOWN|MISCONF|NOREPLICAS|WRONGTYPE)\b"
)
"""Error codes for which redis-py has no class, or that a script's error contains."""


class CredentialsError(RedisError):
    """No password is available for the login. The text says why, for people."""


class TlsError(OSError):
    """A connection that failed because of TLS.

    The text says why, for people. redis-py raises its own error from this error.
    """


KINDS: dict[type[Exception], str] = {
    AskError: "ask",
    AuthenticationError: "auth",
    BusyLoadingError: "loading",
    ClusterCrossSlotError: "crossslot",
    ClusterDownError: "clusterdown",
    CredentialsError: "credentials",
    MasterDownError: "masterdown",
    MovedError: "moved",
    NoPermissionError: "noperm",
    OutOfMemoryError: "oom",
    ReadOnlyError: "readonly",
    TryAgainError: "tryagain",
}
"""Labels of errors, by class. redis-py removes the error code from the texts of its own classes."""

_SCRIPT_NOISE = re.compile(
    r"Error running script \(call to f_[0-9a-f]{40}\): |@?user_script: ?\d+: |(?<=: )-?ERR |^-?ERR "
    r"| script: [0-9a-f]{40}, on @user_script:\d+\.?"
)
_BEFORE_LOGIN = "Protocol error: unauthenticated "
"""Start of the error for a command that is longer than Redis allows before the login."""
_IN_SCRIPT = "user executing the script"
_COMMAND = re.compile(rf"run the '(?P<direct>[^']+)' command|^(?P<script>[A-Z]+): .*{_IN_SCRIPT} can't run")
"""Pattern for the refused command: in the server's own error, or in the error that `scripts/call.lua` raises."""
_IS_SENTINEL = "; a Sentinel answers like this: put its address into REDIS_SENTINELS"
_HINTS = {
    "unknown command 'TIME'": _IS_SENTINEL,
    "unknown command `TIME`": _IS_SENTINEL,
    "unknown command 'SELECT'": _IS_SENTINEL,
    "unknown command `SELECT`": _IS_SENTINEL,
}
"""Another possible cause of an error before the first call, by the error's words."""
_WORDS = {
    "ask": "the key's slot of the cluster is migrating, and another node has the key; REDIS_CLUSTER=true follows it",
    "clusterdown": "the cluster does not serve the key",
    "crossslot": "the keys of one call are in several slots of the cluster",
    "moved": "the server is a node of a cluster, and another node has the key; REDIS_CLUSTER=true follows it",
    "tryagain": "the key's slot of the cluster is migrating, and no node has all of it yet",
}
"""The meaning of a cluster's error codes."""
LONGEST = 300
"""Limit of a failure's text, in characters."""


class NoPrimary(RedisError):
    """The sentinels name no primary, or the server that they name says that it is not a primary."""


class OtherPrimary(NoPrimary):
    """The sentinels name another primary than the connected one."""


class OtherShape(InvalidResponse):
    """An answer without the expected shape. The text repeats no part of the answer."""


KINDS |= {NoPrimary: "sentinel", OtherPrimary: "sentinel", OtherShape: "malformed"}


@dataclass(frozen=True, slots=True)
class Failure:
    """A call without a reply: `kind` is a label, and `text` is for people.

    If `may_execute`, the server may still execute the call.
    """

    kind: str
    text: str
    may_execute: bool


def failure_of(
    error: Exception, *, may_execute: bool, keys: Sequence[str] = (), channels: Sequence[str] = ()
) -> Failure:
    """The failure for an error of redis-py, of the network or of the event loop.

    Args:
        error: the error.
        may_execute: whether the server may execute the call despite the error.
        keys: the keys of the call. If the user has no right to one of them, the failure names them all, since the
            server names none.
        channels: the channels of the call. If the user has no right to one of them, the failure names them all.
    """
    text = without_script(str(error).partition("\n")[0].partition(", with args")[0])
    if isinstance(error, TimeoutError):
        kind, text = "timeout", _noted(error.__cause__) or "no answer in time"
    elif (known := KINDS.get(type(error))) is not None:
        kind = known
        text = f"{_WORDS[kind]} ({text})" if kind in _WORDS else text
    elif text.startswith(_BEFORE_LOGIN):
        kind, text = "auth", "Authentication required."  # the server's text for a shorter command
    elif code := _CODES.search(text):
        kind = code.group().lower()
    elif _IN_SCRIPT in text or "ACL failure" in text:
        kind = "noperm"
    elif (tls := _tls_error(error)) is not None:
        kind, text = "tls", str(tls)
    elif isinstance(error, ResponseError):
        kind = "response"
    elif isinstance(error, (RedisError, OSError)) and not isinstance(error, InvalidResponse):
        kind = "connection"
    else:
        kind, text = "malformed", f"not an answer of Redis: {type(error).__name__}: {text}"
    if kind in ("connection", "response") and not may_execute:
        text += next((hint for words, hint in _HINTS.items() if words in text), "")
    if kind == "noperm":
        text = _missing_right(text, keys, channels)
    where = _noted(error)
    if where is not None and not isinstance(error, NoPrimary) and not text.startswith(where):
        text = f"{where}: {text}"
    return Failure(kind, one_line(text or type(error).__name__, LONGEST), may_execute=may_execute)


def without_script(text: str) -> str:
    """The text of an error without the hash, the line numbers and the codes that surround a script's error."""
    return _SCRIPT_NOISE.sub("", text).strip()


def _tls_error(error: Exception) -> TlsError | None:
    """The TLS failure that is the cause of redis-py's error."""
    causes = (error, error.__cause__, error.__context__)
    return next((each for each in causes if isinstance(each, TlsError)), None)


def note(error: BaseException, server: str, awaited: str | None = None) -> None:
    """Add a note with the server and the awaited step to an error, for `failure_of`. An error keeps its first note.

    Args:
        error: the error. A cancellation by a limit becomes the cause of a TimeoutError.
        server: `RedisConnection.named`.
        awaited: the step that a cancellation interrupted; None if only an answer was missing.
    """
    if _noted(error) is not None or not (server or awaited):
        return
    reason = awaited or ("no answer in time" if isinstance(error, CancelledError) else None)
    error.add_note(": ".join(filter(None, (server, reason))))


def _noted(error: BaseException | None) -> str | None:
    notes: list[str] = getattr(error, "__notes__", [])
    return notes[0] if notes else None


def _missing_right(text: str, keys: Sequence[str], channels: Sequence[str]) -> str:
    """The right that the user of Redis lacks, or the server's own words if they have no known form."""
    if found := _COMMAND.search(text):
        what = f"the command {(found['direct'] or found['script']).replace('|', ' ').upper()}"
    elif "channel" in text and channels:
        what = f"the channel {' or '.join(channels)}"
    elif "key" in text and keys:
        what = f"the key {' or '.join(keys)}"
    else:
        return f"no permission: {text}"
    return f"no permission for {what}; docs/redis.md lists the rights that the user needs"
