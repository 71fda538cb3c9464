"""Listeners of applications in the test's process, on free ports."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from runtime.addresses import Address
from runtime.listener import AtOnce, Limits, Listener

LOOPBACK = "127.0.0.1"


async def leave_before_the_continue(url: str) -> None:
    """Send requests with `Expect: 100-continue` to a listener, and close each connection at once."""
    host, port = url.removeprefix("http://").split(":")
    for _ in range(10):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n")


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
