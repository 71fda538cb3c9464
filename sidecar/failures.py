"""Why a call to Redis got no reply: a label for metrics, and a line for people."""

import re
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

_CODES = re.compile(r"\b(READONLY|LOADING|MASTERDOWN|BUSY|OOM|NOAUTH|NOPERM|CLUSTERDOWN|MISCONF|NOREPLICAS)\b")
"""Error codes that say what is wrong, where redis-py knows no class for them or a script's error holds them."""
KINDS: dict[type[Exception], str] = {
    AskError: "ask",
    AuthenticationError: "auth",
    BusyLoadingError: "loading",
    ClusterCrossSlotError: "crossslot",
    ClusterDownError: "clusterdown",
    MasterDownError: "masterdown",
    MovedError: "moved",
    NoPermissionError: "noperm",
    OutOfMemoryError: "oom",
    ReadOnlyError: "readonly",
    TryAgainError: "tryagain",
}
"""Where redis-py makes a class of an error code and takes it from the text."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call without a reply: `kind` is a label, `text` for people. It `may_execute` until its deadline."""

    kind: str
    text: str
    may_execute: bool


def failure_of(error: Exception, *, may_execute: bool) -> Failure:
    """The failure that an error of redis-py, of the network or of the event loop stands for."""
    text = str(error).partition("\n")[0].partition(", with args")[0][:200]
    if isinstance(error, TimeoutError):
        kind, text = "timeout", "no answer in time"
    elif (known := KINDS.get(type(error))) is not None:
        kind = known
        if kind == "moved":
            text = f"a cluster of several nodes, and the key is not at this one ({text})"
    elif code := _CODES.search(text):
        kind = code.group().lower()
    elif "user executing the script" in text:
        kind = "noperm"
    elif isinstance(error, ResponseError):
        kind = "response"
    elif isinstance(error, (RedisError, OSError)) and not isinstance(error, InvalidResponse):
        kind = "connection"
    else:
        kind, text = "malformed", f"no answer of Redis's: {type(error).__name__}: {text}"
    return Failure(kind, text or type(error).__name__, may_execute=may_execute)
