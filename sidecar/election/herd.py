"""The spread of calls after an event that all candidates of a lease notice at the same time.

A release, an expiry, the end of the failover guard and each write of the key reach every candidate within a
millisecond. If all of them called at once, the server would run their scripts before it serves the next leader. So in a
large fleet only a few candidates call at once. The other candidates call within `SPREAD`, because the first few may
have no client that wants the lease. Each candidate decides by itself, from the number of candidates that watch the
lease. A wrong number changes delays only. The module does no I/O and reads no clock.
"""

from collections.abc import Callable

SMALL_FLEET = 8
"""Largest number of candidates for which no call is delayed."""
AT_ONCE = 4
"""Average number of candidates in a larger fleet that call at once."""
SPREAD = 0.05
"""Longest delay of a call, in seconds."""
HEAD_START = 0.005
"""Shortest delay of a call that is delayed, in seconds: the first calls, and their replies, go ahead."""


def delay(candidates: int | None, uniform: Callable[[float, float], float]) -> float:
    """The delay of this candidate's call after a common event, in seconds.

    Args:
        candidates: number of candidates that watch the lease; None if unknown, and then no call is delayed.
        uniform: draws a number between two bounds, like `random.uniform`.
    """
    if candidates is None or candidates <= SMALL_FLEET or uniform(0, candidates) < AT_ONCE:
        return 0.0
    return uniform(HEAD_START, SPREAD)
