"""Answers of Redis as the store reads them: checked, since anything may speak at the other end."""

from typing import Any

from redis.exceptions import InvalidResponse

from sidecar.protocol import Outcome, Reply


def number(answer: object) -> int:
    """The answer, where it is a number.

    Raises:
        InvalidResponse: it is not.
    """
    if not isinstance(answer, int):
        raise InvalidResponse("an answer is not the number that it should be")
    return answer


def server_time(answer: Any) -> int:
    """The server's time in µs, from the answer to TIME.

    Raises:
        InvalidResponse: the answer is no time.
    """
    try:
        seconds, microseconds = answer
        return int(seconds) * 1_000_000 + int(microseconds)
    except (TypeError, ValueError) as error:
        raise InvalidResponse("the answer to TIME is no time") from error


def parse(answer: object) -> tuple[Reply, int, str | None, str | None, str | None]:
    """A script's answer: the reply, the server's time in µs, guard, notice and history; see `scripts/prelude.lua`.

    Raises:
        InvalidResponse: it has not that shape.
    """
    try:
        outcome, token, tenure, ttl, time, wait, *facts, holder = text(answer).split(" ", 9)
        guard, notice, history = (None if fact == "-" else fact for fact in facts)
        left = int(ttl)
        reply = Reply(
            outcome=Outcome(outcome),
            holder=holder or None,
            token=int(token) if token.isdigit() else None,
            ttl=left / 1000 if left >= 0 else None,
            wait=int(wait) / 1000,
            tenure=tenure,
        )
        if reply.token is None and reply.outcome in (Outcome.ACQUIRED, Outcome.ADOPTED, Outcome.STEPPING_DOWN):
            raise ValueError("a term without a token")
        return reply, int(time), guard, notice, history
    except ValueError as error:
        raise InvalidResponse("a script's answer has not the shape it should have") from error


def text(value: object) -> str:
    """A text, or what there is in its place, as a text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
