"""Values that are read on request, once for all requests that arrive together."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_AGE = 1.0
"""Minimum time between the beginnings of two reads, in seconds."""


class Recent(Generic[T]):
    """A value that is read again if a request comes `MAX_AGE` seconds or more after the beginning of the last read.

    Requests that arrive during a read share this read. A client that disconnects does not end the read; `close` does.

    Args:
        read: reads the value. Its error is raised in every request that shares the read.
        limit: seconds for which a request waits for a read, counted from the beginning of the read.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], limit: float) -> None:
        self._read = read
        self._limit = limit
        self._reading: asyncio.Task[T] | None = None
        self._began = 0.0

    async def get(self) -> T | None:
        """The value; None if the read takes longer than the limit."""
        now = time.monotonic()
        if self._reading is None or (self._reading.done() and now - self._began >= MAX_AGE):
            self._reading, self._began = asyncio.create_task(self._start(), name="status"), now
        reading = self._reading
        await asyncio.wait((reading,), timeout=max(self._began + self._limit - now, 0.0))
        return reading.result() if reading.done() else None

    @property
    def age(self) -> float:
        """Seconds since the beginning of the last read."""
        return time.monotonic() - self._began

    async def close(self) -> None:
        """End a read that still runs."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))

    async def _start(self) -> T:
        return await self._read()
