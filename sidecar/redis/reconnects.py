"""When a connection is made again that a call does not need yet."""

from collections.abc import Callable

FIRST = 0.05
"""The pause before the first attempt, in seconds, on average."""


class Reconnects:
    """Pauses that double from attempt to attempt, spread at random: a failover ends the connections of a whole fleet.

    Args:
        most: the longest pause, in seconds, on average.
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
        """The connection carried a call and its reply: the next attempt is a first one."""
        self._next = FIRST
