"""Many open streams on one task."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import aiohttp

OPENING_AT_ONCE = 20
"""Maximum number of streams that are opened concurrently."""
OPENED_WITHIN = 60.0
"""Limit for a stream to be opened, in seconds."""


@dataclass(frozen=True)
class Refused:
    """A refusal of a stream."""

    status: int
    retry_after: str | None


class OpenStreams:
    """Streams of one client that reads all values; an async context manager that closes the streams at its end.

    Attributes:
        events: the number of values that were received.
        ended: the number of streams that the task has ended.
    """

    def __init__(self, base: str, portfolios: Sequence[str]) -> None:
        self.events = 0
        self.ended = 0
        self._base = base
        self._portfolios = portfolios
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None, connect=OPENED_WITHIN)
        )
        self._answers: list[aiohttp.ClientResponse] = []
        self._reading: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        for answer in self._answers:
            answer.close()
        await self._session.close()

    def __len__(self) -> int:
        return len(self._reading) - self.ended

    async def open(self) -> Refused | None:
        """Open one more stream; returns the answer if it was refused."""
        portfolio = self._portfolios[len(self._reading) % len(self._portfolios)]
        async with asyncio.timeout(OPENED_WITHIN):
            answer = await self._session.get(f"{self._base}/portfolios/{portfolio}/stream")
        if answer.status != 200:
            refused = Refused(answer.status, answer.headers.get("Retry-After"))
            answer.close()
            return refused
        self._answers.append(answer)
        self._reading.append(asyncio.create_task(self._read(answer)))
        return None

    async def _read(self, answer: aiohttp.ClientResponse) -> None:
        async for line in answer.content:
            self.events += line.startswith(b"data:")
        self.ended += 1
