"""The operator's commands: they replace `redis-cli` where it is not installed, and show the sidecar's status.

No image of this project contains `redis-cli`, and ECS Exec needs a writable root file system. So each command can run
as a task of its own (`aws ecs run-task`, as the command of the sidecar's container). A command reads the sidecar's
settings and does not campaign. Only `status` needs a running sidecar.
"""

import json
import re
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from urllib.request import ProxyHandler, build_opener

from runtime.clock import elapsed
from runtime.escape import one_line
from sidecar.commands import fence as fence_command
from sidecar.commands.connection import LIMIT, CommandError, CommandRedis, in_redis
from sidecar.commands.fence import PROBLEMS, Say, look
from sidecar.redis.failures import without_script
from sidecar.scripts import script
from sidecar.settings import Settings, control_address, read

USAGE = """\
usage: python -m sidecar [COMMAND]

  (none)                 run the sidecar
  healthcheck            check whether the sidecar in this container is healthy
  status                 show what the sidecar in this task says about its leases
  exec LEASE [--grace SECONDS] [--once] -- COMMAND [ARG...]
                         run COMMAND while this task leads the lease; asks the sidecar at SIDECAR_URL (docs/exec.md)
  leaders                show the holder of each lease, its remaining time, and the last token
  disable LEASE SECONDS  let nobody lead for that time; work stops at once
  enable LEASE           end what disable began
  fence LEASE            show the last token in Redis, and repair a fence that refuses every term while the lease is
                         disabled (--dry-run changes nothing; --above TOKEN: the next token is above the database's)

Settings come from the environment; docs/settings.md lists them.
Exit status: 0 success, 1 failure, 2 invalid arguments or settings."""
ARGUMENTS = {
    "status": "",
    "leaders": "",
    "disable": " LEASE SECONDS",
    "enable": " LEASE",
    "fence": " LEASE [--dry-run] [--above TOKEN]",
    "healthcheck": "",
}
"""The arguments that each command takes."""

LONGEST = 30 * 86_400
"""Maximum time for which a lease may be disabled, in seconds. A mistake in a longer time could stay unnoticed."""

_LARGEST_STATUS = 1 << 20
"""Limit of a sidecar's status, in bytes."""

_DISABLE, _ENABLE = script("call", "disable"), script("call", "enable")


class UsageError(Exception):
    """An invalid command line; the text is one line that names the invalid word."""


def run(words: Sequence[str], environment: Mapping[str, str], say: Say = print) -> str:
    """Run a command; returns the text to print. `say` shows a line before the command has ended.

    Raises:
        SettingsError: a setting cannot be used.
        UsageError: there is no such command, lease, option or duration.
        CommandError: Redis or the sidecar does not answer, or the lease is not as the command wants it.
    """
    match words:
        case ["status"]:
            return _status(environment)
        case ["leaders"]:
            settings = read(environment)
            return in_redis(settings, lambda redis: _leaders(redis, settings.keys))
        case ["disable", lease, seconds]:
            settings = read(environment)
            key, duration = _key(settings, lease), _duration(seconds)
            return in_redis(settings, lambda redis: _disable(redis, settings, lease, key, duration))
        case ["enable", lease]:
            settings = read(environment)
            key = _key(settings, lease)
            return in_redis(settings, lambda redis: _enable(redis, settings, lease, key))
        case ["fence", lease, *options]:
            settings = read(environment)
            key, ttl = _key(settings, lease), settings.timings.ttl
            try:
                dry_run, above = fence_command.parse(options)
            except ValueError as error:
                raise UsageError(f"fence takes --dry-run and --above TOKEN, not {one_line(error)!r}") from None
            return in_redis(
                settings,
                lambda redis: fence_command.fence(
                    redis, lease, key, ttl=ttl, above=above, dry_run=dry_run, say=say, clock=elapsed
                ),
            )
    if words[0] in ARGUMENTS:
        raise UsageError(f"usage: {words[0]}{ARGUMENTS[words[0]]}")
    raise UsageError(f"no command {one_line(' '.join(words))!r}; --help lists the commands and their arguments")


def _status(environment: Mapping[str, str]) -> str:
    url = f"http://{control_address(environment)}/status"
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=LIMIT) as answer:
            body = answer.read(_LARGEST_STATUS + 1)
        if len(body) > _LARGEST_STATUS:
            raise ValueError(f"the answer is longer than {_LARGEST_STATUS} bytes")
        return json.dumps(json.loads(body), indent=2).replace("\x7f", "\\u007f")  # the control that json keeps
    except (OSError, ValueError, RecursionError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        why = reason.strerror if isinstance(reason, OSError) and reason.strerror else reason
        raise CommandError(f"no sidecar answers at {url}: {one_line(why)}") from None


async def _leaders(redis: CommandRedis, keys: Mapping[str, str]) -> str:
    lines, problems = [("lease", "holder", "seconds left", "last token")], []
    for lease, key in keys.items():
        seen = await look(redis, key)
        left = f"{seen.left / 1000:.1f}" if seen.left >= 0 else "-"
        holder = "?" if seen.problem == "wrong_type" else seen.holder or "nobody"
        lines.append((lease, holder, left, seen.token or "-"))
        if seen.problem in PROBLEMS:
            remedy = "" if seen.problem == "wrong_type" else f"; python -m sidecar fence {lease} mends it"
            problems.append(f"{lease}: {PROBLEMS[seen.problem]}{remedy}")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([*table, *problems])


async def _disable(redis: CommandRedis, settings: Settings, lease: str, key: str, duration: int) -> str:
    holder, refusal = await redis.run_script(_DISABLE, [key], duration)
    return f"{lease} is disabled for {duration} s; it was held by {one_line(holder) or 'nobody'}" + _notice_refused(
        refusal, settings, key
    )


async def _enable(redis: CommandRedis, settings: Settings, lease: str, key: str) -> str:
    holder, refusal = await redis.run_script(_ENABLE, [key])
    if holder.upper() != "DISABLED":
        raise CommandError(f"{lease} is not disabled: it is held by {one_line(holder) or 'nobody'}")
    return f"{lease} is enabled: the next candidate can lead now" + _notice_refused(refusal, settings, key)


def _notice_refused(refusal: str, settings: Settings, key: str) -> str:
    """The line to add if Redis refused to publish the notice. The command has taken effect nevertheless."""
    if not refusal:
        return ""
    return (
        f"\nthe sidecars could not be notified on the channel {key}:changed ({one_line(without_script(refusal))}):"
        f" one that does not track the key notices within its heartbeat, {settings.timings.heartbeat:g} s;"
        " docs/redis.md lists the rights"
    )


def _key(settings: Settings, lease: str) -> str:
    if lease not in settings.keys:
        raise UsageError(f"no lease {one_line(lease)!r}: LEASES names {', '.join(settings.keys)}")
    return settings.keys[lease]


def _duration(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 0 < int(text) <= LONGEST:
        raise UsageError(f"{one_line(text)!r} is not a whole number of seconds from 1 to {LONGEST}")
    return int(text)
