"""The leaders, as the tasks report them: each API, which does the work, is polled five times a second."""

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf

import aiohttp

from ops.rehearse.member import Member

PORTS = 9101, 8080
"""Ports of an API's metrics; versions with one listener serve the metrics on the public port."""

ASK_EVERY = 0.2
ANSWER_LIMIT = 1.0
_LEADING = re.compile(r'^portfolio_leading\{lease="(\w+)"\} 1\.0$', re.MULTILINE)
LEASES = "background_services", "daily_scheduler"


@dataclass
class Led:
    """A task led a lease from `began` to `ended`, in seconds since the epoch."""

    task: str
    lease: str
    began: float
    ended: float = inf


class LeaderWatch:
    """Polls every running task until cancelled; the results are in `led`."""

    def __init__(self, members: Callable[[], Iterable[Member]]) -> None:
        self.led: list[Led] = []
        self._members = members
        self._open: dict[tuple[str, str], Led] = {}

    def leaders(self) -> dict[str, str]:
        """The label of the present leader, by lease."""
        return {lease: led.task for (_, lease), led in self._open.items()}

    async def run(self) -> None:
        """Poll until cancelled."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            watched: set[str] = set()
            while True:
                for member in self._members():
                    if member.label not in watched and member.pod is not None:
                        watched.add(member.label)
                        group.create_task(self._watch(session, member))
                await asyncio.sleep(ASK_EVERY)

    async def _watch(self, session: aiohttp.ClientSession, member: Member) -> None:
        while (pod := member.pod) is not None:
            led = await self._led_by(session, pod.address)
            for lease in LEASES:
                self._note(member.label, lease, leads=lease in led)
            await asyncio.sleep(ASK_EVERY)
        for lease in LEASES:
            self._note(member.label, lease, leads=False)

    async def _led_by(self, session: aiohttp.ClientSession, address: str) -> set[str]:
        for port in PORTS:
            try:
                async with session.get(f"http://{address}:{port}/metrics") as answer:
                    return set(_LEADING.findall(await answer.text()))
            except aiohttp.ClientConnectorError:
                continue  # nothing listens there
            except (aiohttp.ClientError, OSError, TimeoutError):
                break
        return set()

    def _note(self, task: str, lease: str, *, leads: bool) -> None:
        known = self._open.get((task, lease))
        if leads and known is None:
            self._open[task, lease] = led = Led(task, lease, time.time())
            self.led.append(led)
        elif not leads and known is not None:
            known.ended = time.time()
            del self._open[task, lease]
