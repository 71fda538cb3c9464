"""The limit of a hand-over in a fleet: bare connections with the watches of sidecars, a minimal release and a claim.

A member is such a connection. It stands for one candidate.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

from redis import Redis

from bench.watchers import KEY, RELEASE
from sidecar.election.herd import SMALL_FLEET

PAUSE = 0.1
"""Seconds between two rounds, in which the members that claim nothing read their messages."""


def measure_limit(redis: Redis, redis_url: str, members: int, rounds: int) -> tuple[float, ...]:
    """Return the seconds from each release until Redis confirms the next claim.

    Every member has the same kind of watch as a sidecar. One member, the claimer, claims the key; the others drop their
    messages. At most `SMALL_FLEET` of the others have a direct watch. Half of the others connect before the claimer and
    half after it, as in `bench.growth`.
    """
    crowd = max(0, members - 2)
    direct = min(crowd, SMALL_FLEET)
    halves = [("relayed", crowd - direct), ("direct", direct)]
    before = [(mode, count // 2) for mode, count in halves]
    after = [(mode, count - count // 2) for mode, count in halves]
    gaps: list[float] = []
    with ExitStack() as open_:
        said: dict[str, IO[str]] = {}
        for mode, count in [*before, ("claimer", 1), *after]:
            if count:
                said[mode] = open_.enter_context(_watchers(count, redis_url, mode))
                said[mode].readline()  # ready
        for _ in range(rounds):
            time.sleep(PAUSE)
            released_at = time.clock_gettime(time.CLOCK_MONOTONIC)
            redis.eval(RELEASE, 0)
            gaps.append(float(said["claimer"].readline().split()[1]) - released_at)
    redis.delete(KEY)
    return tuple(gaps)


@contextmanager
def _watchers(count: int, redis_url: str, mode: str) -> Iterator[IO[str]]:
    """Run a process of members during the block; yields its output."""
    command = [sys.executable, "-m", "bench.watchers", str(count), redis_url, mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout
        finally:
            process.kill()
