"""The legs of a hand-over through Redis, from the times at which Redis runs the commands."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.handover.group import Group
from bench.handover.servers import RedisLease

LINE = re.compile(rb'\+?(\d+\.\d+) \[[^]]*\] "(\w+)" "([^"]*)"')
"""A line of MONITOR: the time of day, the client, the command and its first argument."""


@dataclass(frozen=True)
class Legs:
    """The duration of each leg, in seconds."""

    release: float
    """From the end of the work to the release in Redis."""
    acquire: float
    """From the release to the next acquire in Redis."""
    start: float
    """From the acquire to the first line of the next work."""


async def legs(group: Group, server: RedisLease, rounds: int, done: Callable[[], object]) -> list[Legs]:
    """Hand over a number of times while a connection monitors Redis; returns the legs of each hand-over."""
    async with _commands(server) as commands:
        hand_overs, leader = await group.hand_overs(rounds, done)
        await group.rest(leader)
    found = []
    for each in hand_overs:
        within = [(at, word) for at, word in commands if each.ended <= at <= each.began]
        released = next(at for at, word in within if word == b"del")
        acquired = next(at for at, word in within if word == b"set" and at >= released)
        found.append(Legs(released - each.ended, acquired - released, each.began - acquired))
    return found


@asynccontextmanager
async def _commands(server: RedisLease) -> AsyncIterator[list[tuple[float, bytes]]]:
    """Collect the times, on the monotonic clock, of the commands on the lease's key while the block runs."""
    offset = time.time() - time.monotonic()
    commands: list[tuple[float, bytes]] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)

    async def collect() -> None:
        async for line in reader:
            found = LINE.match(line)
            if found and found[3].decode() == server.key:
                commands.append((float(found[1]) - offset, found[2].lower()))

    writer.write(b"MONITOR\r\n")
    await reader.readline()
    collecting = asyncio.create_task(collect())
    try:
        yield commands
    finally:
        writer.close()
        await collecting
