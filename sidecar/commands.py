"""The operator's commands: what `redis-cli` does for a lease where there is none, and what the sidecar beside says.

No image of this project holds `redis-cli`, and ECS Exec needs a root that can be written. So each command can be run as
a task of its own (`aws ecs run-task`, with it as the sidecar's command): it takes the sidecar's settings, campaigns for
nothing, and needs no running sidecar, but for `status`.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from sidecar.redis_connection import Connector, log_in
from sidecar.redis_store import fence_of
from sidecar.settings import Settings, control_address, read

USAGE = """\
usage: python -m sidecar [COMMAND]

  (none)                 run the sidecar
  healthcheck            ask the sidecar beside this whether it is well
  status                 what the sidecar beside this says of its leases
  leaders                who holds each lease, for how long, and the last token
  disable LEASE SECONDS  nobody leads for so long; work stops at once
  enable LEASE           end that

Settings come from the environment; README.md has them all.
Exit status: 0 done, 1 not done, 2 wrong arguments or settings."""

LIMIT = 5.0
"""Seconds that Redis may take for all of a command, or the sidecar for its answer."""
LONGEST = 30 * 86_400
"""Seconds for which a lease may be disabled: a slip in a longer time nobody would notice."""

_ENABLE = (Path(__file__).parent / "scripts" / "enable.lua").read_text()


class CommandError(Exception):
    """A command that was not carried out; the text is one line for people."""


class UsageError(Exception):
    """A command line that cannot be meant; the text is one line that names the word."""


def run(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Carry a command out; returns what to print.

    Raises:
        SettingsError: a setting cannot be used.
        UsageError: there is no such command, lease or duration.
        CommandError: Redis or the sidecar does not answer, or the lease is not as the command wants it.
    """
    match words:
        case ["status"]:
            return _status(environment)
        case ["leaders"]:
            settings = read(environment)
            return _in_redis(settings, lambda redis: _leaders(redis, settings.keys))
        case ["disable", lease, seconds]:
            settings = read(environment)
            key, duration = _key(settings, lease), _duration(seconds)
            return _in_redis(settings, lambda redis: _disable(redis, lease, key, duration))
        case ["enable", lease]:
            settings = read(environment)
            key = _key(settings, lease)
            return _in_redis(settings, lambda redis: _enable(redis, lease, key))
    raise UsageError(f"no command {' '.join(words)!r}; --help names those there are, and what each takes")


def _status(environment: Mapping[str, str]) -> str:
    url = f"http://{control_address(environment)}/status"
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=LIMIT) as answer:
            return json.dumps(json.load(answer), indent=2)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        why = reason.strerror if isinstance(reason, OSError) and reason.strerror else reason
        raise CommandError(f"no sidecar answers at {url}: {why}") from None


def _in_redis(settings: Settings, work: Callable[[Connection], Awaitable[str]]) -> str:
    async def connected() -> str:
        redis = Connector(settings.redis)()
        try:
            async with asyncio.timeout(LIMIT):
                await log_in(redis)
                return await work(redis)
        finally:
            await redis.disconnect(nowait=True)

    try:
        return asyncio.run(connected())
    except (RedisError, OSError) as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else str(error).partition("\n")[0]
        raise CommandError(f"Redis at {settings.redis.place}: {why}") from None


async def _leaders(redis: Connection, keys: Mapping[str, str]) -> str:
    lines = [("lease", "holder", "seconds left", "last token")]
    for lease, key in keys.items():
        holder = await _ask(redis, "GET", key)
        left = await _ask(redis, "PTTL", key)
        token = await _ask(redis, "HGET", fence_of(key), "token")
        lines.append((lease, holder or "nobody", f"{left / 1000:.1f}" if left >= 0 else "-", token or "-"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


async def _disable(redis: Connection, lease: str, key: str, duration: int) -> str:
    holder = await _ask(redis, "GET", key)
    await _ask(redis, "SET", key, "DISABLED", "EX", duration)
    return f"{lease} is disabled for {duration} s; it was held by {holder or 'nobody'}"


async def _enable(redis: Connection, lease: str, key: str) -> str:
    holder = await _ask(redis, "EVAL", _ENABLE, 1, key)
    if str(holder).upper() != "DISABLED":
        raise CommandError(f"{lease} is not disabled: it is held by {holder or 'nobody'}")
    return f"{lease} is enabled: whoever campaigns for it leads now"


async def _ask(redis: Connection, *words: str | int) -> Any:
    await redis.send_command(*words)
    return await redis.read_response()


def _key(settings: Settings, lease: str) -> str:
    if lease not in settings.keys:
        raise UsageError(f"no lease {lease!r}: LEASES names {', '.join(settings.keys)}")
    return settings.keys[lease]


def _duration(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 0 < int(text) <= LONGEST:
        raise UsageError(f"{text!r} is not a whole number of seconds from 1 to {LONGEST}")
    return int(text)
