"""`python -m sidecar fence LEASE`: shows Redis's side of a lease's fence, and repairs a fence that refuses every term.

`python -m service fence LEASE` shows the database's side. A fence is repaired only when the lease has been disabled for
one ttl without interruption. After that time no candidate still believes that it leads, so no leader has a token above
the new token of the fence.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sidecar.commands.connection import CommandError, CommandRedis
from sidecar.commands.look import PROBLEMS, Look, document, look
from sidecar.commands.report import Report

LOOK_EVERY = 1.0
"""Seconds between two looks at a lease that must stay disabled."""
DAY = 86_400 * 1_000_000
"""Maximum time by which a token may be ahead of Redis's clock, in µs; the scripts refuse larger tokens."""

Say = Callable[[str], None]


async def fence(
    redis: CommandRedis,
    lease: str,
    key: str,
    *,
    ttl: float,
    above: int | None,
    dry_run: bool,
    say: Say,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Report:
    """Show the fence, and repair it if it refuses every term, or if its token is below `above`.

    Args:
        redis: the connection.
        lease: the lease's name.
        key: the lease's key.
        ttl: seconds for which the lease must be seen disabled before anything is changed.
        above: a token that the next term's token must exceed, such as the database's last token; None for none.
        dry_run: change nothing.
        say: shows a line at once.
        clock: monotonic seconds.
        sleep: waits for a number of seconds.

    Raises:
        CommandError: the fence was not changed; the text says why.
    """
    seen = await look(redis, key, least=above)
    if above is not None and above > seen.now + DAY:
        raise CommandError(
            f"{lease}: --above {above} is more than a day ahead of Redis's time, {seen.now}: every term would be"
            f" refused; if it is the database's token, first run python -m service fence {lease}"
        )
    for line in _described(lease, seen):
        say(line)
    if seen.done == "sound":
        return Report(["nothing to repair"], _document(lease, seen, "sound", None))
    if dry_run:
        line = f"would set the token to {seen.target} ({time_of(seen.target)}); nothing was written"
        return Report([line], _document(lease, seen, "to be repaired", seen.target))
    say(f"the lease must stay disabled for its ttl, {ttl:g} s: waiting")
    until = clock() + ttl
    while (seconds := until - clock()) > 0:
        _check(lease, seen, await look(redis, key), seconds)
        await sleep(min(LOOK_EVERY, seconds))
    repaired = await look(redis, key, least=above, state=seen.state)
    if repaired.done != "repaired":
        _check(lease, seen, repaired, 0.0)
        raise CommandError(f"{lease}: not repaired: the fence no longer needs a repair")
    lines = [
        f"repaired: the token is {repaired.target} ({time_of(repaired.target)}); the next term's token is larger",
        f"to elect again, run python -m sidecar enable {lease}",
    ]
    return Report(lines, _document(lease, seen, "repaired", repaired.target))


def time_of(token: int) -> str:
    """The time that a token stands for (µs since 1970), as text for people."""
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=token)).isoformat(" ", "seconds")
    except OverflowError:
        return "a time after the year 9999"


def _check(lease: str, seen: Look, now: Look, seconds: float) -> None:
    """Raise CommandError unless the fence is unchanged and the lease stays disabled for `seconds` more seconds."""
    if not now.is_disabled:
        why = f"it is not disabled: {now.held}"
    elif 0 <= now.left < seconds * 1000:
        why = f"{now.held}, and {seconds:.1f} s are needed"
    elif now.state != seen.state:
        raise CommandError(f"{lease}: not repaired: the fence has changed meanwhile: token {now.token or 'none'}")
    else:
        return
    raise CommandError(f"{lease}: not repaired: {why}; first run python -m sidecar disable {lease} 3600")


def _document(lease: str, seen: Look, result: str, new_token: int | None) -> dict[str, Any]:
    """The answer of `--json`: the fence as it was found, and the result of the repair."""
    found = {**document(seen), "token_holder": seen.token_holder or None, "redis_time": seen.now}
    return {"lease": lease, "result": result, "new_token": new_token, **found}


def _described(lease: str, seen: Look) -> list[str]:
    token = f"token {seen.token} of {seen.token_holder or 'nobody'}" if seen.token else "no token"
    if seen.token.isdecimal():
        token = token.replace(" of ", f" ({time_of(int(seen.token))}) of ", 1)
    problem = PROBLEMS.get(seen.problem, "the token is not too far ahead")
    return [f"{lease}: {token}; {seen.held}", f"Redis's time is {seen.now} ({time_of(seen.now)}): {problem}"]
