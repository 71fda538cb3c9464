"""Many candidates for one lease in one process, wired as in a sidecar.

`python -m bench.candidates COUNT URL NAME MODE`. MODE is `measured`, or `crowd` for a process with the lowest priority.
The process prints `ready T` when every candidate has a watch and a first reply of Redis, `began T` when a candidate
leads, and `ended T` just before it resigns. T is in seconds of the machine's monotonic clock. A line on standard input
makes the leader resign.

Measured candidates draw the lowest random number, so they are among the few that call at once after a release.
"""

import asyncio
import os
import random
import resource
import secrets
import sys
import time
from collections.abc import Callable

import uvloop

from runtime.clock import elapsed
from runtime.lookup import Lookups
from sidecar.election.candidate import Candidate
from sidecar.election.lease import Lease
from sidecar.protocol import Timings
from sidecar.redis.connection import Connector
from sidecar.redis.store import RedisStore
from sidecar.redis.watch import RedisWatch, WatchMode
from sidecar.settings import read
from sidecar.telemetry import Telemetry

LEASE = "growth"
STARTS = 20
"""Number of candidates that connect at the same time."""
SPREAD = Timings().heartbeat / 2
"""Duration of the starts in a crowd, in seconds.

Two crowds start one after the other, so the heartbeats of the fleet are spread evenly, as if the tasks had started at
different times.
"""
LOOK = 0.02
"""Seconds between two checks of whether the candidates have started."""


def emit(word: str) -> None:
    """Print the word and the time."""
    print(word, time.clock_gettime(time.CLOCK_MONOTONIC), flush=True)


class Campaigner:
    """A candidate with its watch; it campaigns without a client."""

    def __init__(self, redis_url: str, name: str, uniform: Callable[[float, float], float]) -> None:
        settings = read({"REDIS_URL": redis_url, "LEASES": LEASE, "INSTANCE_ID": name})
        timings = Timings()
        connect = Connector(settings.redis, settings.kind, lookups=Lookups(), limit=timings.call_limit)
        boot = secrets.token_hex(4)
        lease = Lease(name, timings, boot=boot, now=elapsed(), uniform=uniform, require_client=False)
        store = RedisStore(connect, name, timings, clock=elapsed, failover_guard=False, min_replicas=0)
        telemetry = Telemetry(name, clock=elapsed)
        self.candidate = Candidate(
            {LEASE: lease}, settings.keys, store, timings, telemetry, clock=elapsed, uniform=uniform
        )
        self.watch = RedisWatch(
            connect.companion, settings.keys, self.candidate.noticed, self.candidate.step_down_noticed,
            relay=self.candidate.relay_noticed, limit=timings.call_limit, interval=timings.heartbeat, uniform=uniform,
        )  # fmt: skip
        self.candidate.choose_watch = self.watch.choose
        telemetry.watch(self.candidate.statuses, store, self.watch)

    @property
    def leads(self) -> bool:
        """True if the candidate leads."""
        return self.candidate.status(LEASE).leads

    @property
    def ready(self) -> bool:
        """True if the candidate has a watch and a first reply of Redis."""
        return self.watch.mode is not WatchMode.OFF and self.candidate.status(LEASE).holder is not None

    async def report(self) -> None:
        """Print `began` once in each term, at the moment at which a sidecar would answer a client's held request."""
        led = False
        while True:
            version = self.candidate.version([LEASE])
            grant, _ = self.candidate.granted(LEASE, elapsed(), "", None)
            if grant is not None and not led:
                emit("began")
            led = grant is not None
            await self.candidate.hold([LEASE], version, 30.0, "", None)

    def resign(self) -> None:
        """Resign the lease."""
        emit("ended")
        self.candidate.resigned(LEASE, None, "")


async def main(count: int, redis_url: str, name: str, measured: bool) -> None:
    """Campaign until standard input ends."""
    uniform: Callable[[float, float], float] = (lambda low, _: low) if measured else random.Random(name).uniform
    campaigners = [Campaigner(redis_url, f"{name}-{number}", uniform) for number in range(count)]
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with asyncio.TaskGroup() as tasks:
        running: list[asyncio.Task[None]] = []
        for first in range(0, count, STARTS):
            started = campaigners[first : first + STARTS]
            next_at = elapsed() + SPREAD * STARTS / count
            for each in started:
                running += [tasks.create_task(run) for run in (each.watch.run(), each.candidate.run(), each.report())]
            while not all(each.ready for each in started):  # noqa: ASYNC110 - the product has no event for this state
                await asyncio.sleep(LOOK)
            if first + STARTS < count:
                await asyncio.sleep(max(0.0, next_at - elapsed()))
        emit("ready")
        while await lines.readline():
            for each in campaigners:
                if each.leads:
                    each.resign()
        for task in running:
            task.cancel()


if __name__ == "__main__":
    count, url, name, mode = sys.argv[1:]
    if mode == "crowd":
        os.nice(19)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two connections for each candidate
    uvloop.run(main(int(count), url, name, mode == "measured"))
