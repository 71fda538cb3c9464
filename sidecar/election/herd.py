"""The candidates of a large fleet that receive notices, and the spread of their calls.

A release, an expiry, the end of the failover guard and each write of the key reach many candidates within a
millisecond. If all of them called at once, the server would run their scripts before it serves the next leader. The
messages take time, too: Redis writes a message to each candidate before it executes the next call.

So in a large fleet about `SMALL_FLEET` candidates have a direct watch, and receive every change. The other candidates
have a relayed watch: if no candidate with a direct watch acquires a released lease, the candidates with a direct watch
notify the others. If few watches are direct, or few are relayed, the release itself notifies everybody. Of many
candidates that notice an event, only a few call at once. The others call within `SPREAD`, because the first few may
have no client that wants the lease.

Each candidate decides by itself, from the numbers of watches that the server counts. A wrong number changes only
delays.
"""

from collections.abc import Callable

SMALL_FLEET = 8
"""Largest size of a fleet in which no call is delayed, and even a candidate that does not campaign watches directly.

It is also the approximate number of direct watches in a larger fleet.
"""
MAX_DIRECT = 12
"""Number of direct watches above which candidates change to a relayed watch.

The distance to `SMALL_FLEET` keeps candidates from changing back and forth.
"""
AT_ONCE = 4
"""Average number of candidates in a larger fleet that call at once."""
SPREAD = 0.05
"""Longest delay of a call, in seconds."""
HEAD_START = 0.005
"""Shortest delay of a call that is delayed, in seconds: the first calls, and their replies, go ahead."""

Uniform = Callable[[float, float], float]
"""Function that draws a number between two bounds, like `random.uniform`."""


def delay(candidates: int | None, uniform: Uniform) -> float:
    """The delay of this candidate's call after a common event, in seconds.

    Args:
        candidates: number of candidates that notice the event; None if unknown, and then no call is delayed.
        uniform: see `Uniform`.
    """
    if candidates is None or candidates <= SMALL_FLEET or uniform(0, candidates) < AT_ONCE:
        return 0.0
    return uniform(HEAD_START, SPREAD)


def relay_delay(uniform: Uniform) -> float:
    """The time, in seconds, for which a candidate waits for others with a direct watch before it relays a notice."""
    return uniform(HEAD_START, SPREAD)


def watches_directly(direct: int, watchers: int, *, now_direct: bool, campaigns: bool, uniform: Uniform) -> bool:
    """Whether this candidate, which does not lead, has a direct watch from now on.

    The candidates of a large fleet change their watch at random. So if all of them decide at the same moment, some
    direct watches stay direct, and only a few relayed watches become direct. A candidate of a large fleet that does not
    campaign needs no direct watch.

    Args:
        direct: number of candidates with a direct watch.
        watchers: number of candidates with any watch.
        now_direct: whether this candidate has a direct watch now.
        campaigns: whether this candidate would acquire the lease.
        uniform: see `Uniform`.
    """
    needs_direct = campaigns or watchers <= SMALL_FLEET
    if not now_direct:
        return needs_direct and uniform(0, watchers - direct) < 2 * (SMALL_FLEET - direct)
    return needs_direct and (direct <= MAX_DIRECT or uniform(0, direct) < SMALL_FLEET)
