"""Parsers for the answers of Redis. They check everything, because any program may be at the other end."""

import re
from typing import Any

from redis.exceptions import InvalidResponse

from sidecar.protocol import Outcome, Reply

LIMIT = 1 << 63
"""Limit of a time or a duration: Redis's own numbers are smaller."""
_TOKEN_LIMIT = 10**32
"""Limit of a token: the scripts leave out a token of more than 32 digits, which somebody wrote into the fence."""
_NO_KEY = -2
"""Ttl, in ms, of a key that does not exist. A key with an empty value has another ttl."""
_WATCHES_LIMIT = 1_000_000
"""Limit of the number of watches of one lease."""


def number(answer: object) -> int:
    """The answer as a number.

    Raises:
        InvalidResponse: the answer is not a number.
    """
    if not isinstance(answer, int):
        raise InvalidResponse("an answer is not a number as expected")
    return answer


def server_time(answer: Any) -> int:
    """The server's time in µs, from the answer to TIME.

    Raises:
        InvalidResponse: the answer is not a time.
    """
    try:
        seconds, microseconds = answer
        return int(seconds) * 1_000_000 + int(microseconds)
    except (TypeError, ValueError) as error:
        raise InvalidResponse("the answer to TIME is not a time") from error


def eviction_policy(memory: object) -> str | None:
    """The policy in an answer to INFO memory; None if the answer names none."""
    policy = re.search(r"maxmemory_policy:(\S+)", text(memory))
    return policy.group(1) if policy else None


def parse(answer: object) -> tuple[Reply, int, str | None, str | None, str | None]:
    """A script's answer: the reply, the server's time in µs, guard, notice and history; see `scripts/prelude.lua`.

    Raises:
        InvalidResponse: the answer does not have that shape.
    """
    try:
        outcome, token, tenure, ttl, time, wait, *facts, holder = text(answer).split(" ", 11)
        guard, notice, history, watchers, direct = (None if fact == "-" else fact for fact in facts)
        left = bounded(ttl, -2, LIMIT)
        reply = Reply(
            outcome=Outcome(outcome),
            holder=holder if holder or left != _NO_KEY else None,
            token=bounded(token, 0, _TOKEN_LIMIT) if token.isdigit() else None,
            ttl=left / 1000 if left >= 0 else None,
            wait=bounded(wait, 0, LIMIT) / 1000,
            tenure=tenure,
            watchers=None if watchers is None else bounded(watchers, 0, _WATCHES_LIMIT),
            direct=None if direct is None else bounded(direct, 0, _WATCHES_LIMIT),
        )
        if reply.token is None and reply.outcome in (Outcome.ACQUIRED, Outcome.ADOPTED, Outcome.STEPPING_DOWN):
            raise ValueError("a term without a token")
        return reply, bounded(time, 0, LIMIT), guard, notice, history
    except ValueError as error:
        raise InvalidResponse("a script's answer does not have the expected shape") from error


def bounded(word: str, smallest: int, limit: int) -> int:
    """The number in a word of a reply. A number without a limit could raise OverflowError far from here.

    Raises:
        ValueError: the word is not a number from `smallest` to below `limit`.
    """
    found = int(word)
    if not smallest <= found < limit:
        raise ValueError("a number is out of range")
    return found


def text(value: object) -> str:
    """The value as a text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
