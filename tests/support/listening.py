"""Listeners of applications in the test's process, on free ports."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from runtime.addresses import Address
from runtime.listener import AtOnce, Limits, Listener

LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def listening(
    runner: web.AppRunner, limits: Limits | None = None, at_once: AtOnce | None = None
) -> AsyncIterator[str]:
    """Serve an application on loopback; yields its URL."""
    await runner.setup()
    try:
        await Listener(runner, Address(LOOPBACK, 0), limits, at_once).start()
        yield f"http://{LOOPBACK}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
