"""The arguments of `python -P -m sidecar exec`, and the variables that it reads."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime.escape import one_line
from sidecar.settings import SettingsError

GRACE = 10.0
"""Default time between SIGTERM and SIGKILL, in seconds."""
LONGEST_GRACE = 3600.0
"""Limit of `--grace`, in seconds; far above the longest grant that a client accepts, a minute."""
SIDECAR_URL = "http://127.0.0.1:4040"
"""Default address of the sidecar's control listener."""
USAGE = """usage: python -P -m sidecar exec LEASE [--grace SECONDS] [--once] -- COMMAND [ARG...]

  --grace SECONDS  time between SIGTERM and SIGKILL for COMMAND (10; never longer than what is left of the grant)
  --once           end with the status of the first COMMAND that ran

The sidecar is asked at SIDECAR_URL (http://127.0.0.1:4040). COMMAND gets LEASE_NAME, LEASE_TOKEN and LEASE_HOLDER."""
LEVELS = ("debug", "info", "warning", "error")
"""Values of LOG_LEVEL."""


class UsageError(Exception):
    """An invalid command line. The text is one line."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command line. `grace` is in seconds; None if it was not given."""

    lease: str
    command: tuple[str, ...]
    grace: float | None
    once: bool


@dataclass(frozen=True, slots=True)
class Variables:
    """The settings of the wrapper."""

    sidecar_url: str
    log_format: str
    log_level: str


def parse(words: Sequence[str]) -> Arguments:
    """Read the arguments after `exec`.

    Raises:
        UsageError: an argument is missing, unknown or invalid.
    """
    if "--" not in words:
        raise UsageError("exec LEASE [--grace SECONDS] [--once] -- COMMAND [ARG...]: '--' and COMMAND are missing")
    end = words.index("--")
    command, rest = tuple(words[end + 1 :]), list(words[:end])
    if not command or not command[0]:
        raise UsageError("exec: no COMMAND follows '--'")
    lease: str | None = None
    grace: float | None = None
    once = False
    while rest:
        match rest:
            case ["--once", *others]:
                once, rest = True, others
            case ["--grace", seconds, *others]:
                grace, rest = _grace(seconds), others
            case ["--grace"]:
                raise UsageError("exec: --grace needs a number of seconds")
            case [word, *others] if word.startswith("--grace="):
                grace, rest = _grace(word.removeprefix("--grace=")), others
            case [word, *others] if lease is None and word and not word.startswith("-"):
                lease, rest = word, others
            case [word, *_]:
                raise UsageError(f"exec takes LEASE, --grace SECONDS and --once before '--', not {one_line(word)!r}")
    if lease is None:
        raise UsageError("exec: the name of a LEASE is missing before '--'")
    if not lease.isascii():  # LEASES allows only ASCII, and `quote` fails on other bytes
        raise UsageError(f"exec: {one_line(lease)!r} is not the name of a LEASE, which is ASCII")
    return Arguments(lease, command, grace, once)


def read(environment: Mapping[str, str]) -> Variables:
    """Read the variables. An empty variable counts as unset.

    Raises:
        SettingsError: a value is invalid. The text has one line for each invalid value.
    """
    env = {name: value.strip() for name, value in environment.items() if value.strip()}
    form, level = env.get("LOG_FORMAT", "json").lower(), env.get("LOG_LEVEL", "info").lower()
    wrong = []
    if form not in ("json", "text"):
        wrong.append(f"LOG_FORMAT: {one_line(env['LOG_FORMAT'])!r} is not one of json, text")
    if level not in LEVELS:
        wrong.append(f"LOG_LEVEL: {one_line(env['LOG_LEVEL'])!r} is not one of {', '.join(LEVELS)}")
    if wrong:
        raise SettingsError("\n".join(wrong))
    return Variables(env.get("SIDECAR_URL", SIDECAR_URL), form, level.upper())


def _grace(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_GRACE:
        raise UsageError(f"exec: --grace {one_line(text)!r} is not a number of seconds from 0 to {LONGEST_GRACE:g}")
    return seconds
