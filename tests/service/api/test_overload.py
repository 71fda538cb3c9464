"""A whole service whose database role is allowed fewer connections than the service can use."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import aiohttp
import asyncpg
import pytest

from service.commands.samples import SAMPLES
from tests.support.processes import Service, Sidecar
from tests.support.waiting import eventually

PORTFOLIO = next(iter(SAMPLES))


@pytest.mark.slow
async def test_three_connections_suffice_for_requests_ticks_and_streams(
    samples_url: str,
    new_sidecar: Callable[..., Sidecar],
    new_service: Callable[..., Service],
    session: aiohttp.ClientSession,
    stack: AsyncExitStack,
) -> None:
    admin = await asyncpg.connect(samples_url)
    stack.push_async_callback(admin.close)
    await admin.execute("create role three login bypassrls connection limit 3 in role portfolio_service")
    url = samples_url.replace("//postgres@", "//three@")
    sidecar = await stack.enter_async_context(new_sidecar("one"))
    service = new_service("one", sidecar.url, DATABASE_URL=url)
    async with service:
        await eventually(lambda: admin.fetchval("select count(*) > 0 from portfolio_live"))
        before = await admin.fetchval("select max(as_of) from portfolio_live")

        async def ask() -> int:
            async with session.get(f"{service.url}/portfolios/{PORTFOLIO}/live") as response:
                return response.status

        statuses = Counter(await asyncio.gather(*(ask() for _ in range(300))))
        assert statuses == {200: 300}
        await eventually(lambda: admin.fetchval("select max(as_of) > $1 from portfolio_live", before))
        async with session.get(f"{service.url}/portfolios/{PORTFOLIO}/stream") as stream:
            async with asyncio.timeout(20):
                events = 0
                while events < 3:
                    events += (await stream.content.readline()).startswith(b"data: ")
        assert (await service.get_internal("/healthz"))["database"] == "ok"
        assert not any("too many connections" in text for text in service.messages() if text.startswith("database:"))
    gone = "select count(*) = 0 from pg_stat_activity where usename = 'three'"
    await eventually(lambda: admin.fetchval(gone))
    await admin.execute("drop role three")
