"""One of two processes that hand a lease to each other: `python -m bench.contender KIND URL`.

Prints `began T` at the start of its work, and `ended T` after the work and before it releases the lease. T is in
seconds of the machine's monotonic clock, which all processes share.
"""

import asyncio
import sys
import time

HOLD = 0.1
"""Seconds for which a lease is held."""
PAUSE = 0.05
"""Seconds between a release and the next attempt, so that the other process gets the lease."""


def say(word: str) -> None:
    """Print the word and the time."""
    print(word, time.clock_gettime(time.CLOCK_MONOTONIC), flush=True)


async def by_sidecar(url: str) -> None:
    """Ask the sidecar at `url`."""
    from sidecar.client import LeaseClient, Term

    async def work(_: Term) -> None:
        say("began")
        await asyncio.sleep(HOLD)
        say("ended")

    async with LeaseClient(url) as client:
        while True:
            await client.leadership("bench").run(work)
            await asyncio.sleep(PAUSE)


def by_redis_py(url: str) -> None:
    """Use redis-py's Lock with its defaults."""
    import redis

    client = redis.Redis.from_url(url)
    while True:
        with client.lock("bench", timeout=30):
            say("began")
            time.sleep(HOLD)
            say("ended")
        time.sleep(PAUSE)


def by_python_redis_lock(url: str) -> None:
    """Use python-redis-lock; its BLPOP needs a socket timeout longer than redis-py's default."""
    import redis
    import redis_lock

    client = redis.Redis.from_url(url, socket_timeout=60)
    while True:
        with redis_lock.Lock(client, "bench", expire=30, auto_renewal=True):
            say("began")
            time.sleep(HOLD)
            say("ended")
        time.sleep(PAUSE)


if __name__ == "__main__":
    kind, address = sys.argv[1:]
    if kind == "sidecar":
        import uvloop

        uvloop.run(by_sidecar(address))
    else:
        {"redis-py": by_redis_py, "python-redis-lock": by_python_redis_lock}[kind](address)
