"""Optional commands: the election works without them, but some servers end a connection after refusing one.

If the server refuses such a command with an error about this command, and then ends the connection at once, new
connections leave this command out for `LEFT_OUT` seconds. An open connection never sends a command that it left out
before, so no attempt to use the command again can end the connection of a leader.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoPermissionError, ResponseError

from runtime.clock import elapsed
from sidecar.redis.failures import failure_of

if TYPE_CHECKING:
    from sidecar.redis.connection import RedisConnection

log = logging.getLogger(__name__)

LEFT_OUT = 300.0
"""Seconds for which new connections leave a command out."""
AT_ONCE = 0.2
"""Maximum number of seconds between a refusal and the end of the connection that the refusal explains."""
_UNKNOWN = re.compile(r"\b(unknown|unsupported) (sub)?command\b")
_WORD = re.compile(r"[a-z]+")


class EndingRefusals:
    """Refusals after which the server ended the connection, shared by the connections of a process."""

    def __init__(self, clock: Callable[[], float] = elapsed) -> None:
        self.clock = clock
        self._refusals: dict[str, tuple[str, float]] = {}

    def add(self, command: str, text: str) -> None:
        """Record a refusal, and log the first refusal of each command."""
        text = f"{text} (the server then ends the connection, so the command is sent again only after {LEFT_OUT:g} s)"
        if command not in self._refusals:
            log.info("Redis refuses the command %s: %s", command, text)
        self._refusals[command] = text, self.clock() + LEFT_OUT

    def current(self) -> dict[str, str]:
        """The text of the refusal of each command to leave out."""
        return {command: text for command, (text, until) in self._refusals.items() if self.clock() < until}


class OptionalCommands:
    """The optional commands of one connection."""

    def __init__(self, known: EndingRefusals) -> None:
        self._known = known
        self._left_out = known.current()
        self._last: tuple[str, str, float] | None = None  # the refusal that was read last, with its time
        self._ended_at = inf
        self._aborted = False
        self.ended_connection = False
        """Whether the server ended the connection because of an optional command."""

    def refusal(self, command: str) -> str | None:
        """The text of the earlier refusal because of which this connection leaves the command out; otherwise None."""
        return self._left_out.get(command)

    @contextmanager
    def reading(self, command: str) -> Iterator[None]:
        """Observe whether the server refuses the command whose answer is read in the block."""
        try:
            yield
        except ResponseError as error:
            if isinstance(error, NoPermissionError) or _refuses(str(error), command):
                text = failure_of(error, may_execute=True, channels=command.split()[1:]).text
                self._last = command, text, self._known.clock()
                self._compare()
            raise
        self._last = None

    async def answer(self, connection: "RedisConnection", command: str) -> Any:
        """The answer to an optional command; None if the connection leaves it out, or the server refuses it."""
        if self.refusal(command) is not None:
            return None
        try:
            with self.reading(command):
                return await connection.read_response()
        except ResponseError:
            return None

    def ended(self) -> None:
        """Record that the server or the network has ended the connection."""
        self._ended_at = self._known.clock()
        self._compare()

    def aborted(self) -> None:
        """Record that the sidecar itself ends the connection."""
        self._aborted = True

    def _compare(self) -> None:
        """Record the last refusal if the connection ended at once after it. The end may be noticed first."""
        if self._last is not None and not self._aborted and self._ended_at <= self._last[2] + AT_ONCE:
            self._known.add(*self._last[:2])
            self.ended_connection = True


def _refuses(text: str, command: str) -> bool:
    """Whether an error is about the command: it has all words of the command's name, or reports an unknown command.

    An error about the whole server or connection may have one of these words, such as `cluster`.
    """
    text = text.lower()
    names = [word for word in command.lower().split() if word.isalpha()]  # a channel is not part of the name
    return _UNKNOWN.search(text) is not None or set(names) <= set(_WORD.findall(text))
