"""Waiting for what other processes do: they set no event of ours."""

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], object | Awaitable[object]], *, within: float = 10.0) -> None:
    """Return as soon as the condition holds; TimeoutError if it does not within so many seconds."""
    async with asyncio.timeout(within):
        while not (await held if isinstance(held := condition(), Awaitable) else held):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)
