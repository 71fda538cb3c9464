"""`python -m sidecar fence LEASE`: shows Redis's side of a lease's fence, and mends one that refuses every term.

The database's side is `python -m service fence LEASE`. A fence is mended only while the lease has been disabled for one
ttl. After that time nobody believes a term any more, so no leader has a token above the new token of the fence.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from runtime.escape import one_line
from sidecar.commands.connection import CommandError, CommandRedis
from sidecar.redis.store import fence_of
from sidecar.scripts import script

LOOK_EVERY = 1.0
"""Seconds between two looks at a lease that must stay disabled."""
DAY = 86_400 * 1_000_000
"""How far a token may be ahead of Redis's clock, in µs; the scripts refuse more."""

PROBLEMS = {
    "wrong_type": "the key is not a string: somebody must delete it",
    "bad_fence": "the fence is not a hash with a whole number for its token: every term is refused",
    "fence_ahead": "the token is more than a day ahead of Redis's clock: every term is refused",
}
"""Texts, for people, for the problems that the scripts report."""

_SCRIPT = script("call", "prelude", "fence")
_NO_DEADLINE = 2**53
_NO_KEY = -2

Say = Callable[[str], None]


class Look(NamedTuple):
    """The answer of `scripts/fence.lua`, with escaped texts; `left` is in ms, times and tokens are in µs."""

    done: str
    problem: str
    holder: str
    left: int
    now: int
    token: str
    token_holder: str
    target: int
    state: str

    @property
    def held(self) -> str:
        """Who holds the key, and for how long, for people."""
        if self.problem == "wrong_type":
            return "the key is not a string"
        if self.left == _NO_KEY:
            return "nobody holds the key"
        return f"{self.holder or 'an empty word'} holds the key " + (
            f"for {self.left / 1000:.1f} s more" if self.left >= 0 else "without a time limit"
        )


async def look(redis: CommandRedis, key: str, *, least: int | None = None, state: str = "") -> Look:
    """Look at a lease and its fence; with the `state` of an earlier look, mend the fence if nothing has changed.

    Args:
        redis: the connection.
        key: the lease's key.
        least: the token that the fence is to have at least, in µs.
        state: `Look.state` of the earlier look.
    """
    fixed = ("", 1, _NO_DEADLINE, 0, "", "")  # id, ttl, deadline, guard, token, tenure: no term is concerned
    answer = await redis.run_script(_SCRIPT, (key, fence_of(key)), *fixed, "" if least is None else least, state)
    done, problem, holder, left, now, token, token_holder, target, state = answer
    return Look(done, problem, one_line(holder), int(left), int(now), one_line(token, 64), one_line(token_holder),
                int(target), state)  # fmt: skip


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
) -> str:
    """Show the fence, and mend it where it refuses every term or has no token as large as `above`.

    Args:
        redis: the connection.
        lease: the lease's name.
        key: the lease's key.
        ttl: seconds for which the lease must be seen disabled before anything is changed.
        above: a token that the next term's token must exceed, such as the database's; None for no such token.
        dry_run: change nothing.
        say: shows a line at once.
        clock: seconds that never step.
        sleep: waits so many seconds.

    Raises:
        CommandError: the fence is as it was; the text says why.
    """
    seen = await look(redis, key, least=above)
    if above is not None and above > seen.now + DAY:
        raise CommandError(
            f"{lease}: --above {above} is more than a day ahead of Redis's time, {seen.now}: every term would be"
            f" refused; if it is the database's token, first python -m service fence {lease}"
        )
    say(_described(lease, seen))
    if seen.done == "sound":
        return "nothing to mend"
    if dry_run:
        return f"would set the token to {seen.target} ({time_of(seen.target)}); nothing was written"
    say(f"the lease must stay disabled for its ttl, {ttl:g} s: waiting")
    until = clock() + ttl
    while (seconds := until - clock()) > 0:
        _check(lease, seen, await look(redis, key), seconds)
        await sleep(min(LOOK_EVERY, seconds))
    mended = await look(redis, key, least=above, state=seen.state)
    if mended.done != "mended":
        _check(lease, seen, mended, 0.0)
        raise CommandError(f"{lease}: not mended: the fence needs no mending any more")
    return (
        f"mended: the token is {mended.target} ({time_of(mended.target)}); the next term's is larger\n"
        f"to elect again: python -m sidecar enable {lease}"
    )


def time_of(token: int) -> str:
    """The instant that a token stands for, for people."""
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=token)).isoformat(" ", "seconds")
    except OverflowError:
        return "a time after the year 9999"


def _check(lease: str, seen: Look, now: Look, seconds: float) -> None:
    """Raise CommandError unless the fence is as it was seen, and the lease stays disabled for so many seconds."""
    if now.holder.upper() != "DISABLED":
        why = f"it is not disabled: {now.held}"
    elif 0 <= now.left < seconds * 1000:
        why = f"{now.held}, and {seconds:.1f} s are needed"
    elif now.state != seen.state:
        raise CommandError(f"{lease}: not mended: the fence has changed meanwhile: token {now.token or 'none'}")
    else:
        return
    raise CommandError(f"{lease}: not mended: {why}; first python -m sidecar disable {lease} 3600")


def _described(lease: str, seen: Look) -> str:
    token = f"token {seen.token} of {seen.token_holder or 'nobody'}" if seen.token else "no token"
    if seen.token.isdecimal():
        token = token.replace(" of ", f" ({time_of(int(seen.token))}) of ", 1)
    problem = PROBLEMS.get(seen.problem, "the token is not too far ahead")
    return f"{lease}: {token}; {seen.held}\nRedis's time is {seen.now} ({time_of(seen.now)}): {problem}"


def parse(options: Sequence[str]) -> tuple[bool, int | None]:
    """Whether it is a dry run, and the token of `--above`.

    Raises:
        ValueError: an option is unknown, or a token is invalid.
    """
    rest, dry_run, above = list(options), False, None
    while rest:
        match rest:
            case ["--dry-run", *others]:
                dry_run, rest = True, others
            case ["--above", text, *others] if text.isdecimal() and text.isascii() and len(text) <= 16:
                above, rest = int(text), others
            case _:
                raise ValueError(" ".join(rest))
    return dry_run, above
