"""The client of a row in its own process: `python -m bench.redis_kinds.client URL DIARY`.

It campaigns until SIGTERM, and records its beliefs in the diary (`tests.chaos.diary`). On SIGUSR1 the client ends its
work and resigns.
"""

import asyncio
import signal
import sys
from pathlib import Path

from sidecar.client import LeaseClient, Term
from tests.chaos.diary import Diary, observe
from tests.chaos.schedule import LEASES

LEASE = LEASES[0]


async def campaign(url: str) -> None:
    """Work whenever this process leads, until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop, ends = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, ends.set)

    async def work(_: Term) -> None:
        ends.clear()
        await ends.wait()

    async def run() -> None:
        async with LeaseClient(url) as client:
            while True:
                await client.leadership(LEASE).run(work)

    running = asyncio.create_task(run())
    await stop.wait()
    running.cancel()
    await asyncio.wait([running])


def main(url: str, diary: str) -> None:
    """Record the beliefs, and campaign."""
    observe(Diary(Path(diary)))
    asyncio.run(campaign(url))


if __name__ == "__main__":
    main(*sys.argv[1:])
