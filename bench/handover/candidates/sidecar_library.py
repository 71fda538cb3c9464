"""A program with a sidecar and the client library: `python -m bench.handover.candidates.sidecar_library URL`."""

import asyncio
import signal
import sys

import uvloop

from bench.handover.candidates.stage import log, now, report
from sidecar.client import LeaseClient, Term

ended = 0.0
"""The time at which the last work ended."""


async def work(_: Term) -> None:
    """Work until the library cancels the work."""
    global ended  # noqa: PLW0603 - the cancelled `run` cannot return the time
    report("began", now())
    try:
        await asyncio.Event().wait()
    finally:
        ended = now()


async def main(url: str) -> None:
    """Campaign after each line on standard input; SIGTERM cancels `run`, as a service does at its end."""
    log()
    loop = asyncio.get_running_loop()
    async with LeaseClient(url) as client:
        leadership = client.leadership("bench")
        report("ready", now())
        while await loop.run_in_executor(None, sys.stdin.readline):
            running = asyncio.create_task(leadership.run(work))
            loop.add_signal_handler(signal.SIGTERM, running.cancel)
            await asyncio.wait([running])
            if not running.cancelled():
                raise SystemExit(f"run() returned: {running.exception()!r}")
            report("ended", ended)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
