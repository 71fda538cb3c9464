"""Limits of connections from outside the task: whatever the network sends to the metrics port, no term ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from ops.local.servers import RedisServer
from runtime.listener import Limits
from tests.support.served_control import served
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("redis")  # an empty Redis: no sidecar could lead while another test's key lives

HALF = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: "


@asynccontextmanager
async def connected(
    url: str, source: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def answers(url: str) -> bool:
    """True if a new connection is answered; an unwanted connection is closed at once."""
    with suppress(ConnectionError):
        async with connected(url) as (reader, writer), asyncio.timeout(20):
            writer.write(b"GET /healthz HTTP/1.0\r\nHost: x\r\n\r\n")
            return (await reader.read()).startswith(b"HTTP/1.0 200")
    return False


async def test_external_connections_are_limited_and_the_client_is_still_answered(
    redis_server: RedisServer,
) -> None:
    """Otherwise a peer of the metrics port could use up the file descriptors, and the client would lose the lease."""
    async with served(redis_server, limits=Limits(connections=2)) as sidecar:
        async with connected(sidecar.metrics_url) as (one, writer), connected(sidecar.metrics_url) as (two, other):
            for line in (writer, other):
                line.write(HALF)  # the connection is accepted, but there is nothing to answer yet

            async def full() -> bool:
                return not await answers(sidecar.metrics_url)

            await eventually(full)
            assert not one.at_eof()
            assert not two.at_eof()
            assert (await sidecar.lead())["is_leader"]

        async def free() -> bool:
            return await answers(sidecar.metrics_url)

        await eventually(free)


@pytest.mark.parametrize("before", [b"", HALF, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + HALF])
async def test_an_external_connection_without_a_complete_header_is_closed_but_not_the_clients(
    before: bytes, redis_server: RedisServer
) -> None:
    async with (
        served(redis_server, limits=Limits(idle=1.0)) as sidecar,
        connected(sidecar.url) as (own, own_writer),
        connected(sidecar.metrics_url) as (strange, writer),
        asyncio.timeout(20),
    ):
        own_writer.write(before)
        writer.write(before)
        answered = await strange.read()
        assert answered.count(b"HTTP/1.1 200") == before.count(b"\r\n\r\n")
        own_writer.write(b"\r\n\r\n" if before else HALF + b"\r\n\r\n")
        assert (await own.readline()).startswith(b"HTTP/1.1 ")


@pytest.mark.slow
async def test_incomplete_headers_of_one_peer_do_not_block_metrics_for_another_peer(redis_server: RedisServer) -> None:
    async with served(redis_server) as sidecar, AsyncExitStack() as stack:
        strange = [await stack.enter_async_context(connected(sidecar.metrics_url, "127.0.0.2")) for _ in range(64)]
        for _, writer in strange:
            writer.write(HALF)
        refused = [asyncio.create_task(reader.read()) for reader, _ in strange]
        await eventually(lambda: sum(task.done() for task in refused) == 64 - 8)
        assert await sidecar.metric("sidecar_redis_up") == 1
        await asyncio.gather(*refused, return_exceptions=True)  # after ten seconds the other connections are closed too
