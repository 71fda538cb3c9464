"""Waiting for what other processes do, which set no event of ours; and tests that a standstill of this one spoils."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp

T = TypeVar("T")

LIMIT = 20.0
"""Seconds after which a condition counts as never coming. Only a test that fails waits so long; where the machine is
busy a condition may take a hundred times its usual time."""
ROUNDS = 5
"""How often a test is tried whose time a standstill has spoilt: a machine may leave a process alone for seconds."""


async def eventually(condition: Callable[[], object | Awaitable[object]], *, within: float = LIMIT) -> Any:
    """What the condition gives, as soon as that is true; an error of an HTTP request counts as not yet.

    Raises:
        TimeoutError: it was not within so many seconds; from the last such error, if there was one.
    """
    not_yet: aiohttp.ClientError | None = None
    try:
        async with asyncio.timeout(within):
            while True:
                try:
                    if found := (await held if isinstance(held := condition(), Awaitable) else held):
                        return found
                except aiohttp.ClientError as error:  # of a process that is not up yet, or is gone for a moment
                    not_yet = error
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise TimeoutError(f"not within {within:g} s") from not_yet


class Standstill:
    """For how long this process's event loop did not come round."""

    def __init__(self) -> None:
        self._came_round_at = time.monotonic()
        self._longest = 0.0

    @property
    def longest(self) -> float:
        """In seconds, the time since it came round last included."""
        return max(self._longest, time.monotonic() - self._came_round_at)

    async def watch(self) -> None:
        """Look at the clock, until cancelled."""
        while True:
            await asyncio.sleep(0.01)
            self._longest, self._came_round_at = self.longest, time.monotonic()


@asynccontextmanager
async def standstill() -> AsyncIterator[Standstill]:
    """Measures it in the block."""
    stood = Standstill()
    watching = asyncio.create_task(stood.watch())
    try:
        yield stood
    finally:
        watching.cancel()
        await asyncio.wait((watching,))


async def undisturbed(check: Callable[[], Awaitable[T]], *, bears: float) -> T:
    """What a check gives; it is run anew if it fails after this process stood still for longer than it bears (seconds).

    A fault of the product's fails it all the same: at once, or in every round.
    """
    for _ in range(ROUNDS - 1):
        async with standstill() as stood:
            try:
                return await check()
            except (AssertionError, TimeoutError):
                if stood.longest <= bears:
                    raise
    return await check()
