"""Why a call to Redis got no reply: a label for metrics, and a line for people."""

import re
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
"""Error codes that say what is wrong, where redis-py knows no class for them or a script's error holds them."""


class CredentialsError(RedisError):
    """There is no password to log in with; the text says why, for people."""


class TlsError(OSError):
    """A connection that TLS has ended; the text says why, for people. redis-py raises an error of its own from it."""


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
"""Where redis-py makes a class of an error code and takes it from the text."""

_SCRIPT_NOISE = re.compile(
    r"Error running script \(call to f_[0-9a-f]{40}\): |@?user_script: ?\d+: |(?<=: )-?ERR |^-?ERR "
    r"| script: [0-9a-f]{40}, on @user_script:\d+\.?"
)
_IN_SCRIPT = "user executing the script"
_COMMAND = re.compile(rf"run the '(?P<direct>[^']+)' command|^(?P<script>[A-Z]+): .*{_IN_SCRIPT} can't run")
"""The command that a refusal is about: the server's words, or within a script those of `scripts/call.lua`."""
_EXPECTS_TLS = "; a server that expects TLS does this too: REDIS_TLS=true, or rediss:// in REDIS_URL"
_IS_SENTINEL = "; a Sentinel answers so: REDIS_SENTINELS is the setting for its address"
_HINTS = {
    "Connection reset by peer": _EXPECTS_TLS,
    "Connection closed by server": _EXPECTS_TLS,
    "unknown command 'TIME'": _IS_SENTINEL,
    "unknown command `TIME`": _IS_SENTINEL,
    "unknown command 'SELECT'": _IS_SENTINEL,
    "unknown command `SELECT`": _IS_SENTINEL,
}
"""What else an error before the first call can mean, by its words."""
_WORDS = {
    "ask": "the key's slot of the cluster is migrating, and another node has the key; REDIS_CLUSTER=true follows it",
    "clusterdown": "the cluster does not serve the key",
    "crossslot": "the keys of one call are in several slots of the cluster",
    "moved": "a cluster of several nodes, and the key is not at this one; REDIS_CLUSTER=true follows it",
    "tryagain": "the key's slot of the cluster is migrating, and no node has all of it yet",
}
"""What a cluster's error codes mean."""
LONGEST = 300
"""Limit of a failure's text, in characters."""


class NoPrimary(RedisError):
    """The sentinels name no primary, or one that does not say of itself that it is one."""


class OtherPrimary(NoPrimary):
    """The sentinels name another primary than the one that a connection was made to."""


KINDS |= {NoPrimary: "sentinel", OtherPrimary: "sentinel"}


@dataclass(frozen=True, slots=True)
class Failure:
    """A call without a reply: `kind` is a label, `text` for people. It `may_execute` until its deadline."""

    kind: str
    text: str
    may_execute: bool


def failure_of(
    error: Exception, *, may_execute: bool, keys: Sequence[str] = (), channels: Sequence[str] = ()
) -> Failure:
    """The failure that an error of redis-py, of the network or of the event loop stands for.

    Args:
        error: what was raised.
        may_execute: whether the server may carry the call out in spite of the error.
        keys: the keys of the call; they are named where the user has no right to one, since the server names none.
        channels: the same of the channels.
    """
    text = without_script(str(error).partition("\n")[0].partition(", with args")[0])
    if isinstance(error, TimeoutError):
        kind, text = "timeout", _awaited(error) or "no answer in time"
    elif (known := KINDS.get(type(error))) is not None:
        kind = known
        text = f"{_WORDS[kind]} ({text})" if kind in _WORDS else text
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
        kind, text = "malformed", f"no answer of Redis's: {type(error).__name__}: {text}"
    if kind in ("connection", "response") and not may_execute:
        text += next((hint for words, hint in _HINTS.items() if words in text), "")
    if kind == "noperm":
        text = _missing_right(text, keys, channels)
    return Failure(kind, one_line(text or type(error).__name__, LONGEST), may_execute=may_execute)


def without_script(text: str) -> str:
    """An error without the hash, the line numbers and the codes that a script's error has around its words."""
    return _SCRIPT_NOISE.sub("", text).strip()


def _tls_error(error: Exception) -> TlsError | None:
    """The failure of TLS from which redis-py has made an error."""
    causes = (error, error.__cause__, error.__context__)
    return next((each for each in causes if isinstance(each, TlsError)), None)


def _awaited(error: TimeoutError) -> str | None:
    """What a connection waited for when a limit interrupted it: the note of `redis_connection.log_in`."""
    notes: list[str] = getattr(error.__cause__, "__notes__", [])
    return notes[0] if notes else None


def _missing_right(text: str, keys: Sequence[str], channels: Sequence[str]) -> str:
    """What the user of Redis lacks, as far as the server says it; its own words where they are of no known form."""
    if found := _COMMAND.search(text):
        what = f"the command {(found['direct'] or found['script']).replace('|', ' ').upper()}"
    elif "channel" in text and channels:
        what = f"the channel {' or '.join(channels)}"
    elif "key" in text and keys:
        what = f"the key {' or '.join(keys)}"
    else:
        return f"no permission: {text}"
    return f"no permission for {what}; docs/redis.md lists the rights that the user needs"
