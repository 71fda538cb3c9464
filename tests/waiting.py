"""Waiting for what other processes do: they set no event of ours."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

LIMIT = 20.0
"""Seconds after which a condition counts as never coming. Only a test that fails waits so long; where the machine is
busy a condition may take a hundred times its usual time."""


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
