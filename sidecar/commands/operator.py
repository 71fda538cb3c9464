"""The operator's commands: they replace `redis-cli` where it is not installed, and show the sidecar's status.

No image of this project contains `redis-cli`, and ECS Exec works only in tasks that started after it was enabled. So
every command except `status` can also run as a task of its own (`aws ecs run-task`, as the command of the sidecar's
container). `status` asks the running sidecar of the same task. A command reads the sidecar's settings and does not
campaign.
"""

import logging
import re
import sys
from collections.abc import Mapping, Sequence

from runtime.clock import elapsed
from runtime.escape import one_line
from sidecar.commands.arguments import FORMS, USAGE, UsageError, Words, parse
from sidecar.commands.connection import CommandError, in_redis
from sidecar.commands.disabling import LONGEST, checked_reason, disable, enable, operator
from sidecar.commands.fence import Say, fence
from sidecar.commands.history import history
from sidecar.commands.layout import Layout
from sidecar.commands.leaders import leaders
from sidecar.commands.report import Report, to_json
from sidecar.commands.status import status
from sidecar.commands.step_down import step_down
from sidecar.settings import Settings, control_address, read

__all__ = ["FORMS", "USAGE", "CommandError", "UsageError", "run"]


def run(arguments: Sequence[str], environment: Mapping[str, str], say: Say) -> str | None:
    """Run a command, and show its result. Returns one line if the command failed, else None.

    Args:
        arguments: the command line.
        environment: the settings.
        say: shows a line on standard output.

    Raises:
        SettingsError: a setting cannot be used.
        UsageError: there is no such command, lease, option or duration.
        CommandError: Redis or the sidecar does not answer, or the lease is not in the state that the command needs.
    """
    words = parse(arguments)
    logging.getLogger("sidecar").addHandler(logging.NullHandler())  # a command reports its own failures
    report = _report(words, environment, _say_beside if words.as_json else say)
    if report is None:  # the command has shown everything itself
        return None
    for line in [to_json(report.document)] if words.as_json else report.lines:
        say(line)
    return report.failure


def _report(words: Words, environment: Mapping[str, str], say: Say) -> Report | None:
    layout = Layout(encoding=sys.stdout.encoding or "ascii")
    if words.command == "status":
        return status(control_address(environment))
    settings = read(environment)
    if words.command == "watch":
        _watch(words, settings, environment)
        return None
    if words.command == "leaders":
        return in_redis(settings, lambda redis: leaders(redis, settings.keys, layout))
    lease = words.positional[0]
    key, timings = _key(settings, lease), settings.timings
    if words.command == "history":
        return in_redis(settings, lambda redis: history(redis, lease, key, layout))
    if words.command == "step-down":
        return in_redis(settings, lambda redis: step_down(redis, settings, lease, say=say, clock=elapsed))
    if words.command == "disable":
        seconds, reason = _duration(words.positional[1]), _reason(words)
        return in_redis(
            settings,
            lambda redis: disable(redis, lease, key, seconds=seconds, reason=reason, by=operator(), timings=timings),
        )
    if words.command == "enable":
        return in_redis(settings, lambda redis: enable(redis, lease, key, heartbeat=timings.heartbeat))
    above, dry_run = _token(words), "--dry-run" in words.options
    return in_redis(
        settings,
        lambda redis: fence(redis, lease, key, ttl=timings.ttl, above=above, dry_run=dry_run, say=say, clock=elapsed),
    )


def _watch(words: Words, settings: Settings, environment: Mapping[str, str]) -> None:
    from sidecar.commands.watch import watch

    as_json, term = words.as_json, environment.get("TERM", "")
    in_redis(settings, lambda redis: watch(redis, settings, sys.stdout, as_json=as_json, term=term))


def _say_beside(line: str) -> None:
    """Show a line of progress on standard error, so that standard output has only the JSON document."""
    sys.stderr.write(f"{line}\n")


def _key(settings: Settings, lease: str) -> str:
    if lease not in settings.keys:
        raise UsageError(f"no lease {one_line(lease)!r}: LEASES names {', '.join(settings.keys)}")
    return settings.keys[lease]


def _duration(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 0 < int(text) <= LONGEST:
        raise UsageError(f"{one_line(text)!r} is not a whole number of seconds from 1 to {LONGEST}")
    return int(text)


def _reason(words: Words) -> str:
    try:
        return checked_reason(words.options["--reason"]) if "--reason" in words.options else ""
    except ValueError as error:
        raise UsageError(str(error)) from None


def _token(words: Words) -> int | None:
    text = words.options.get("--above")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,16}", text):
        raise UsageError(f"--above takes a token, not {one_line(text)!r}")
    return int(text)
