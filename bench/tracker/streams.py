"""Streams of one task: the time from a tick's commit until the last client has the values."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import aiohttp
import asyncpg

from bench.tracker.stand_ins import TOKEN, Term
from ops.local.servers import free_port
from service.database.store import Store

LISTENERS = 1_000
RETRY_AFTER = 5.0
"""Seconds after which a refused listener asks again, as the service's `Retry-After` says."""


@asynccontextmanager
async def service(dsn: str) -> AsyncIterator[str]:
    """Run `python -m service` on the database. Without a sidecar it never leads."""
    port = free_port()
    environment = {
        "DATABASE_URL": dsn,
        "API_BIND": f"127.0.0.1:{port}",
        "INTERNAL_BIND": f"127.0.0.1:{free_port()}",
        "SIDECAR_URL": "http://127.0.0.1:9",
        "AUTH": "off",
        "PRICE_SOURCE": "simulated",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", env={**os.environ, **environment, "LOG_LEVEL": "error"}
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def slowest_listener(dsn: str, store: Store) -> float:
    """Return the seconds from a tick's commit until the last client of one task has the values."""
    connection = await asyncpg.connect(dsn)
    ids = [row["id"] for row in await connection.fetch("select id from portfolio order by id limit $1", LISTENERS)]
    received: list[float] = []
    ready = asyncio.Semaphore(0)

    async def listen(session: aiohttp.ClientSession, url: str, portfolio_id: UUID) -> None:
        for _ in range(100):
            try:
                async with session.get(f"{url}/portfolios/{portfolio_id}/stream") as response:
                    if response.status == 503:  # Postgres may still be writing the closing values to disk
                        await asyncio.sleep(RETRY_AFTER)
                        continue
                    if response.status != 200:
                        raise SystemExit(f"{response.status}: {await response.text()}")
                    events = 0
                    async for line in response.content:
                        events += line.startswith(b"data:")
                        if events == 1 and line.startswith(b"data:"):
                            ready.release()
                        if events == 2:
                            received.append(time.perf_counter())
                            return
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.1)
        raise SystemExit("the service does not answer")

    async with (
        service(dsn) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout()) as session,
        asyncio.TaskGroup() as tasks,
    ):
        for portfolio_id in ids:
            tasks.create_task(listen(session, url, portfolio_id))
        for _ in ids:
            await ready.acquire()
        newer = Term("background_services", TOKEN + 1)
        await store.claim_fence(newer)
        async with store.fenced(newer):
            pass
        await connection.execute("update portfolio_live set as_of = now(), token = 2 where portfolio_id = any($1)", ids)
        committed = time.perf_counter()
        await connection.execute("notify portfolio_live")
    await connection.close()
    return max(received) - committed
