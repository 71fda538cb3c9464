"""`python -m sidecar step-down LEASE`: asks the holder to hand the lease over, and waits for the next leader.

The request names the term that this command saw. The holder stops its client's work, releases the lease, and leaves it
to the other tasks for one and a half heartbeats.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from runtime.escape import one_line
from sidecar.commands.changes import hearing
from sidecar.commands.connection import CommandError, CommandRedis
from sidecar.commands.look import FIXED, PROBLEMS, Look, document, look
from sidecar.commands.report import Report
from sidecar.protocol import Timings
from sidecar.redis.failures import without_script
from sidecar.redis.store import fence_of
from sidecar.scripts import script
from sidecar.server_kind import late_demotion_of
from sidecar.settings import Settings

_SCRIPT = script("call", "prelude", "step_down")

Say = Callable[[str], None]


def limit_of(timings: Timings) -> float:
    """The limit, in seconds, of the command's wait for another holder.

    The holder reads the request within a heartbeat, releases the lease within a grant, and then rests for one and a
    half heartbeats. If no other candidate has taken the lease by then, the holder leads again. The limit includes the
    time for four calls.
    """
    return timings.heartbeat + timings.grant_ttl + timings.rest + 4 * timings.call_limit


async def step_down(
    redis: CommandRedis, settings: Settings, lease: str, *, say: Say, clock: Callable[[], float]
) -> Report:
    """Ask the holder to step down.

    Wait until another candidate leads, the same holder leads again, the lease is disabled, or the limit has passed.

    Args:
        redis: the connection.
        settings: the leases' keys, and the timings of the sidecars.
        lease: the lease's name.
        say: shows a line at once.
        clock: monotonic seconds.

    Raises:
        CommandError: nobody was asked; the text says why.
    """
    key, limit = settings.keys[lease], limit_of(settings.timings)
    async with hearing(redis, settings, {lease: key}) as changes:
        before = await look(redis, key)
        _check(lease, before)
        asked = clock()
        notice = await _ask(redis, lease, key, before)
        say(f"{lease}: asked {before.holder} (token {before.token}) to step down; waiting up to {limit:.0f} s")
        if notice:
            say(
                f"the notice was refused ({one_line(without_script(notice))}): the holder reads the request at its"
                f" next renewal, within {settings.timings.heartbeat:g} s"
            )
        try:
            now, problem = before, ""
            while (left := asked + limit - clock()) > 0:
                try:
                    now, problem = await look(redis, key), ""
                except CommandError as error:
                    problem = str(error)
                if not problem and (end := _end(lease, before, now)) is not None:
                    return _report(lease, before, now, clock() - asked, end)
                await changes.wait(min(left, 1.0))
        except asyncio.CancelledError:
            say(f"{lease}: the request remains in force; this command no longer waits")
            raise
    return _report(lease, before, now, clock() - asked, problem or _after_limit(settings, lease, before, now))


async def _ask(redis: CommandRedis, lease: str, key: str, seen: Look) -> str:
    """Send the request; returns the reason if Redis refused the notice, else ''."""
    _, ttl, deadline, guard, _, tenure = FIXED
    arguments = ("", ttl, deadline, guard, seen.token, tenure)
    outcome, notice = await redis.run_script(_SCRIPT, (key, fence_of(key)), *arguments, words=2)
    if outcome != "asked":
        why = {
            "vacant": "nobody holds the lease any more",
            "disabled": "the lease has just been disabled",
            "changed": "another term has just begun; look again",
        }
        reason = why.get(outcome) or PROBLEMS.get(outcome, outcome)
        raise CommandError(f"{lease}: nobody was asked to step down: {reason}")
    return notice


def _check(lease: str, seen: Look) -> None:
    """Raise CommandError unless the holder can be asked."""
    if seen.trouble is not None:
        why = seen.trouble
    elif seen.word == "vacant":
        why = "nobody holds the lease"
    elif seen.is_disabled:
        why = f"it is {seen.disable or 'disabled'}; python -m sidecar enable {lease} ends this"
    elif not seen.is_term:
        why = f"{seen.holder or 'an empty value'} holds the key without a term, and cannot be asked"
    else:
        return
    raise CommandError(f"{lease}: nobody was asked to step down: {why}")


def _end(lease: str, before: Look, now: Look) -> str | None:
    """The result of the step-down: '' if another candidate leads, else why not; None while it continues."""
    if now.word == "vacant" or (now.holder, now.token) == (before.holder, before.token):
        return None
    if now.word == "held" and now.holder == before.holder:
        return f"{lease}: no other task acquired the lease: {now.holder} leads again (token {now.token})"
    if now.word == "held" and now.holder:
        return ""
    return f"{lease}: nobody leads: {now.disable or now.held}"


def _after_limit(settings: Settings, lease: str, before: Look, now: Look) -> str:
    limit = limit_of(settings.timings)
    if now.word == "vacant":
        guard = ""
        if settings.failover_guard and (now.server_changed or not now.token):  # a restart can lose the fence
            seconds = settings.timings.ttl + late_demotion_of(settings.kind)
            guard = (
                "; the Redis server has changed or restarted, and the failover guard allows no new term for"
                f" {seconds:.0f} s after that"
            )
        return f"{lease}: nobody acquired the lease within {limit:.0f} s, and nobody leads{guard}"
    return (
        f"{lease}: {before.holder} has not released the lease within {limit:.0f} s;"
        " a sidecar of a version without this command ignores the request"
    )


def _report(lease: str, before: Look, now: Look, seconds: float, failure: str) -> Report:
    answer: dict[str, Any] = {
        "lease": lease,
        "handed_over": not failure,
        "previous_holder": before.holder,
        "previous_token": int(before.token),
        "seconds": round(seconds, 3),
        **document(now),
    }
    token = f" (token {now.token})" if now.token and now.token_holder == now.holder else ""
    lines = [] if failure else [f"{lease}: {now.holder} leads now{token}, after {seconds:.2f} s"]
    return Report(lines, answer, failure or None)
