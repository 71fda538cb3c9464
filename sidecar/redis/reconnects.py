"""Pauses before a lost connection is replaced in the background."""

from collections.abc import Callable

FIRST = 0.05
"""Average pause before the first attempt, in seconds."""


class Reconnects:
    """Random pauses that double from attempt to attempt, because a failover ends a whole fleet's connections at once.

    Args:
        most: average of the longest pause, in seconds.
        uniform: `random.uniform`.
    """

    def __init__(self, most: float, uniform: Callable[[float, float], float]) -> None:
        self._most = most
        self._uniform = uniform
        self._next = FIRST

    def pause(self) -> float:
        """Seconds until the next attempt; the pause after that is longer, unless a call succeeds in between."""
        pause, self._next = min(self._next, self._most), min(2 * self._next, self._most)
        return pause * self._uniform(0.5, 1.5)

    def succeeded(self) -> None:
        """Start again with the first pause, because the connection carried a call and its reply."""
        self._next = FIRST
