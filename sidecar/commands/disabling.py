"""`python -m sidecar disable LEASE SECONDS` lets nobody lead for that time; `enable LEASE` ends this.

The key's value is exactly `DISABLED`, as after `SET KEY DISABLED EX SECONDS`. The lease's fence stores the reason.
"""

import getpass
import os
import socket

from runtime.escape import one_line
from sidecar.commands.connection import CommandError, CommandRedis
from sidecar.commands.report import Report
from sidecar.protocol import Timings
from sidecar.redis.failures import without_script
from sidecar.scripts import script

LONGEST = 30 * 86_400
"""Maximum time for which a lease may be disabled, in seconds. A longer time is probably a mistake."""
LONGEST_REASON = 200
"""Limit of a reason, in characters."""

_DISABLE, _ENABLE = script("call", "disable"), script("call", "enable")


async def disable(
    redis: CommandRedis, lease: str, key: str, *, seconds: int, reason: str, by: str, timings: Timings
) -> Report:
    """Let nobody lead for the given time.

    Args:
        redis: the connection.
        lease: the lease's name.
        key: the lease's key.
        seconds: the duration.
        reason: one line for the other operators; '' for none.
        by: who disables the lease.
        timings: the timings of the sidecars.

    Raises:
        CommandError: Redis refuses, or does not answer.
    """
    found, holder, notice, note = await redis.run_script(_DISABLE, [key], seconds, by, reason, words=4)
    holder = one_line(holder)
    lines = [f"{lease} is disabled for {seconds} s; it was held by {_shown(found, holder)}"]
    warnings = _notice_refused(notice, key, timings.heartbeat)
    if found != "vacant" and holder.upper() != "DISABLED" and seconds < timings.ttl:
        warnings.append(
            f"another task can lead in {seconds} s;"
            f" a leader that is cut off from Redis acts for up to {timings.ttl:g} s"
        )
    if note and reason:
        warnings.append(
            f"the reason could not be stored beside the key ({one_line(without_script(note))});"
            " docs/redis.md lists the rights"
        )
    document = {"lease": lease, "seconds": seconds, "reason": reason or None, "disabled_by": by}
    document["previous_holder"] = holder if found == "held" else None
    if note:
        document |= {"reason": None, "disabled_by": None}
    return Report(lines + warnings, {**document, "warnings": warnings})


async def enable(redis: CommandRedis, lease: str, key: str, *, heartbeat: float) -> Report:
    """Enable a lease that `disable`, or a SET by hand, has disabled.

    Raises:
        CommandError: the lease is not disabled, or Redis refuses, or does not answer.
    """
    found, holder, notice = await redis.run_script(_ENABLE, [key], words=3)
    if holder.upper() != "DISABLED":
        raise CommandError(f"{lease} is not disabled: it is held by {_shown(found, one_line(holder))}")
    warnings = _notice_refused(notice, key, heartbeat)
    line = f"{lease} is enabled: the next candidate can lead now"
    return Report([line, *warnings], {"lease": lease, "enabled": True, "warnings": warnings})


def operator() -> str:
    """The user of this command, as `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return one_line(f"{user}@{socket.gethostname()}", 128)


def checked_reason(text: str) -> str:
    """The reason without the white space around it.

    Raises:
        ValueError: the reason is empty, too long, or not one printable line.
    """
    text = text.strip()
    if not text or len(text) > LONGEST_REASON or not text.isprintable():
        raise ValueError(f"--reason takes one printable line of 1 to {LONGEST_REASON} characters")
    return text


def _shown(found: str, holder: str) -> str:
    """The value that a script found in the key, for people."""
    if found == "held":
        return holder or "an empty value"
    return "nobody" if found == "vacant" else "a value that could not be read"


def _notice_refused(refusal: str, key: str, heartbeat: float) -> list[str]:
    """The line to add if Redis refused to publish the notice. The command has taken effect nevertheless."""
    if not refusal:
        return []
    return [
        f"the sidecars could not be notified on the channel {key}:changed ({one_line(without_script(refusal))}):"
        f" a sidecar that does not track the key notices the change within its heartbeat, {heartbeat:g} s;"
        " docs/redis.md lists the rights"
    ]
