"""A sidecar or a client that records the time of each step of a hand-over.

`python -m bench.leg_probe sidecar` or `python -m bench.leg_probe client URL`. The process runs the production code.
This module wraps functions of that code, so the product has no code for measurements. On SIGTERM it prints one line of
JSON: `records`, pairs of a step and its time in seconds of the machine's monotonic clock, and `cpu`, the seconds of
processor time that the process has used.

A client holds the lease for `HOLD` seconds, resigns, and asks again after `PAUSE` seconds.
"""

import asyncio
import functools
import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

HOLD = 0.1
"""Seconds for which a lease is held."""
PAUSE = 0.05
"""Seconds between a resign and the next request; the other client gets the lease in this time."""

records: list[tuple[str, float]] = []


def note(step: str) -> None:
    """Record the step with the current time."""
    records.append((step, time.clock_gettime(time.CLOCK_MONOTONIC)))


def before(owner: Any, name: str, step: Callable[..., str]) -> None:
    """Record a step at each call of a function; `step` makes the step's name from the arguments."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def noted(*arguments: Any, **options: Any) -> Any:
        note(step(*arguments))
        return function(*arguments, **options)

    setattr(owner, name, noted)


def after(owner: Any, name: str, step: str) -> None:
    """Record the step at each return of the function."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def noted(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        note(step)
        return result

    setattr(owner, name, noted)


def run_sidecar() -> None:
    """Run a sidecar with the settings of the environment until SIGTERM."""
    from sidecar.control import Control
    from sidecar.election.candidate import Candidate
    from sidecar.election.lease import Lease
    from sidecar.redis.connection import RedisConnection
    from sidecar.run import run

    before(Control, "_resign", lambda *_: "resign arrives")
    before(Candidate, "noticed", lambda *_: "notice arrives")
    before(RedisConnection, "write", lambda *_: "script sent")
    before(Lease, "replied", lambda _, call, reply, __: f"{call.kind}: {reply.outcome}")
    after(Control, "_answer", "answer made")
    run(os.environ)


async def run_client(url: str) -> None:
    """Lead in turns with another client until SIGTERM."""
    from sidecar.client import LeaseClient, Term, sidecar_api

    logging.getLogger("sidecar.client").setLevel(logging.ERROR)  # a client may start before its sidecar listens
    before(sidecar_api.SidecarApi, "start_resign", lambda *_: "resign begins")
    before(sidecar_api, "parse", lambda *_: "answer read")

    async def work(_: Term) -> None:
        note("work begins")
        await asyncio.sleep(HOLD)
        note("work ends")

    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with LeaseClient(url) as client:
        while True:
            await client.leadership("bench").run(work)
            await asyncio.sleep(PAUSE)


def main(arguments: Sequence[str]) -> None:
    """Run until SIGTERM, then print the records."""
    if arguments[0] == "sidecar":
        run_sidecar()
    else:
        import uvloop

        with suppress(asyncio.CancelledError):
            uvloop.run(run_client(arguments[1]))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"records": records, "cpu": used.ru_utime + used.ru_stime}))


if __name__ == "__main__":
    main(sys.argv[1:])
