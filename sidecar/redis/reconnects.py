"""Pauses between attempts that run in the background: to replace a lost connection, or to fetch credentials."""

from collections.abc import Callable

from runtime.backoff import Backoff

FIRST = 0.05
"""Average pause before the first attempt, in seconds."""


def reconnect_backoff(longest: float, uniform: Callable[[float, float], float]) -> Backoff:
    """Pauses that double from attempt to attempt.

    They are random, because a failover ends a whole fleet's connections at once.

    Args:
        longest: average of the longest pause, in seconds.
        uniform: draws a number between two bounds, like `random.uniform`.
    """
    return Backoff(FIRST, longest, least=0.5, most=1.5, uniform=uniform)
