"""Waiting for conditions in other processes, and repetition of tests that a standstill of this process disturbs."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp

T = TypeVar("T")

LIMIT = 20.0
"""Limit for a condition, in seconds.

Only a failing test waits so long. A busy machine may need a hundred times the usual time.
"""
ROUNDS = 5
"""Maximum number of attempts at a test that standstills disturb: a busy machine may suspend a process for seconds."""


async def eventually(condition: Callable[[], object | Awaitable[object]], *, within: float = LIMIT) -> Any:
    """Wait until the condition returns a true value, and return it. An error of an HTTP request counts as false.

    Raises:
        TimeoutError: the condition was false for `within` seconds. The last error of a request is its cause.
    """
    not_yet: aiohttp.ClientError | None = None
    try:
        async with asyncio.timeout(within):
            while True:
                try:
                    if found := (await held if isinstance(held := condition(), Awaitable) else held):
                        return found
                except aiohttp.ClientError as error:  # the process has not started, or is restarting
                    not_yet = error
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise TimeoutError(f"not within {within:g} s") from not_yet


class Standstill:
    """The longest time for which the event loop of this process stood still."""

    def __init__(self) -> None:
        self._came_round_at = time.monotonic()
        self._longest = 0.0

    @property
    def longest(self) -> float:
        """The longest standstill in seconds, including a standstill that has not ended yet."""
        return max(self._longest, time.monotonic() - self._came_round_at)

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            await asyncio.sleep(0.01)
            self._longest, self._came_round_at = self.longest, time.monotonic()


@asynccontextmanager
async def standstill() -> AsyncIterator[Standstill]:
    """Measure standstills during the block."""
    stood = Standstill()
    watching = asyncio.create_task(stood.watch())
    try:
        yield stood
    finally:
        watching.cancel()
        await asyncio.wait((watching,))


async def undisturbed(check: Callable[[], Awaitable[T]], *, bears: float) -> T:
    """Run a check and return its result. Repeat it if it fails and this process stood still for longer than `bears`.

    A fault of the product still fails the test, at once or in every round.

    Args:
        check: the check.
        bears: longest standstill that the check tolerates, in seconds.
    """
    for _ in range(ROUNDS - 1):
        async with standstill() as stood:
            try:
                return await check()
            except (AssertionError, TimeoutError):
                if stood.longest <= bears:
                    raise
    return await check()
