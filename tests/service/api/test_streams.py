"""Streams of server-sent events are prompt, independent of each other, and ended cleanly."""

import asyncio
import gc
import json
import socket
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from statistics import median

import aiohttp
import pytest
from aiohttp import web

from service.api import routes as app
from service.api.streams import Subscriber
from service.clock import utc_now
from service.database.connection import StoreError
from service.portfolio.freshness import STALE_AFTER
from tests.support.fake_sidecar import LeadingSidecar
from tests.support.processes import Service
from tests.support.served_api import NOON, PORTFOLIO, Served
from tests.support.waiting import eventually

STREAM = f"/portfolios/{PORTFOLIO}/stream"


@pytest.fixture
async def streaming(served: Served) -> AsyncIterator[Served]:
    """The API with the task that serves its streams."""
    task = asyncio.create_task(served.streams.run(served.store))
    yield served
    task.cancel()
    await asyncio.wait((task,))


async def line(response: aiohttp.ClientResponse, prefix: bytes) -> bytes:
    """The next line of the stream with this prefix; empty at the end of the stream."""
    async with asyncio.timeout(20):
        async for text in response.content:
            if text.startswith(prefix):
                return text
    return b""


async def test_a_stream_begins_with_the_current_value_and_gets_each_new_one(streaming: Served) -> None:
    await streaming.write_live("1")
    async with streaming.session.get(streaming.url + STREAM) as response:
        assert b'"value":"1.0000"' in await line(response, b"data:")
        for value in (b"2", b"3"):
            await streaming.write_live(value.decode())
            assert b'"value":"%s.0000"' % value in await line(response, b"data:")


async def test_a_stream_without_a_value_yet_waits_for_the_first(streaming: Served) -> None:
    async with streaming.session.get(streaming.url + STREAM) as response:
        assert response.status == 200
        await streaming.write_live("1")
        assert b'"value":"1.0000"' in await line(response, b"data:")


@pytest.mark.parametrize("last", ["nonsense", "7-1", "", "x" * 2000])
async def test_a_clients_last_event_id_has_no_effect(last: str, streaming: Served) -> None:
    await streaming.write_live("1")
    async with streaming.session.get(streaming.url + STREAM, headers={"Last-Event-ID": last}) as response:
        assert b'"value":"1.0000"' in await line(response, b"data:")


async def test_a_silent_stream_has_heartbeats(streaming: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "HEARTBEAT", 0.05)
    async with streaming.session.get(streaming.url + STREAM) as response:
        assert await line(response, b":")
        assert await line(response, b":")


async def test_a_client_that_reads_nothing_delays_no_other_and_is_disconnected(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "SEND_LIMIT", 2.0)
    small = socket.socket()  # small buffers fill soon; accepted connections inherit them
    small.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    small.bind(("127.0.0.1", 0))
    reading = asyncio.create_task(served.streams.run(served.store))
    async with served.listening(web.SockSite, sock=small):
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect(small.getsockname())
            stuck.sendall(f"GET {STREAM} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            async with served.session.get(served.url + STREAM) as response:
                await eventually(lambda: clients(served, 2))
                cut_off = asyncio.create_task(eventually(lambda: clients(served, 1)))
                while not cut_off.done():
                    value = f"{served.writes + 1}.0000"
                    await served.write_live(value)
                    assert f'"value":"{value}"'.encode() in await line(response, b"data:")
                await cut_off
    reading.cancel()
    await asyncio.wait((reading,))


async def clients(served: Served, count: int) -> bool:
    return served.registry.get_sample_value("portfolio_stream_clients") == count


async def test_the_first_value_of_a_stream_is_stale_if_it_is_stale_now(streaming: Served) -> None:
    await streaming.write_live("1")
    streaming.now = NOON + STALE_AFTER + timedelta(seconds=1)
    async with streaming.session.get(streaming.url + STREAM) as response:
        assert b'"stale":true' in await line(response, b"data:")


async def test_a_value_that_becomes_stale_is_sent_again_without_a_write(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.streams.AGE_INTERVAL", 0.01)
    reading = asyncio.create_task(served.streams.run(served.store))
    await served.write_live("1")
    async with served.session.get(served.url + STREAM) as response:
        assert b'"stale":false' in await line(response, b"data:")
        served.now = NOON + STALE_AFTER + timedelta(seconds=1)
        stale = await line(response, b"data:")
        assert b'"value":"1.0000"' in stale and b'"stale":true' in stale
        await served.write_live("2")
        assert b'"value":"2.0000"' in await line(response, b"data:"), "the stale value is sent only once"
    reading.cancel()
    await asyncio.wait((reading,))


@pytest.mark.slow
async def test_a_follower_sends_a_tick_within_a_second(
    new_service: Callable[..., Service], stack: AsyncExitStack
) -> None:
    """The time from the arrival of prices to the client's event includes valuation, commit and notification."""

    async def nothing(_: str) -> None:
        pass

    leads = await stack.enter_async_context(LeadingSidecar(nothing))
    await stack.enter_async_context(new_service("leader", leads.url, TRACKER_INTERVAL="0.5"))
    other = await stack.enter_async_context(new_service("other", "http://127.0.0.1:9"))
    await eventually(lambda: has_value(other))
    delays: list[float] = []
    async with other.session.get(other.url + STREAM) as response:
        await line(response, b"data:")  # the value from before the stream began
        while len(delays) < 9:
            event = json.loads((await line(response, b"data:")).removeprefix(b"data:"))
            delays.append((utc_now() - datetime.fromisoformat(event["as_of"])).total_seconds())
    assert not await other.leads()
    assert median(delays) < 1


async def has_value(service: Service) -> bool:
    async with service.session.get(f"{service.url}/portfolios/{PORTFOLIO}/live") as response:
        return response.status == 200


async def test_a_slow_subscriber_gets_only_the_latest_value(streaming: Served) -> None:
    with streaming.streams.subscriber(PORTFOLIO) as subscriber:
        values = aiter(subscriber)
        for value in ("1", "2", "3"):
            await streaming.write_live(value)
        latest = await streaming.store.live(PORTFOLIO)

        async def offered() -> bool:
            return subscriber._latest == latest

        await eventually(offered)
        assert await anext(values) == latest


async def test_a_failed_read_of_values_is_repeated(streaming: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    await streaming.write_live("1")
    real, failed = streaming.store.live_of_owners, asyncio.Event()

    async def fail_once(*arguments: object) -> object:
        monkeypatch.setattr(streaming.store, "live_of_owners", real)
        failed.set()
        raise StoreError("database: away")

    monkeypatch.setattr("service.api.streams.RETRY_DELAY", 0.01)
    monkeypatch.setattr(streaming.store, "live_of_owners", fail_once)
    async with streaming.session.get(streaming.url + STREAM) as response:
        assert b'"value":"1.0000"' in await line(response, b"data:")
    assert failed.is_set()


async def test_a_client_that_leaves_is_forgotten(streaming: Served) -> None:
    async with streaming.session.get(streaming.url + STREAM):
        await eventually(lambda: clients(streaming, 1))
    await eventually(lambda: clients(streaming, 0))
    assert not streaming.streams._subscribers


async def test_closing_ends_every_stream_cleanly_and_each_later_one_at_once(streaming: Served) -> None:
    await streaming.write_live("1")
    async with streaming.session.get(streaming.url + STREAM) as response:
        await line(response, b"data:")
        streaming.streams.close()
        async with asyncio.timeout(20):
            await response.content.read()  # raises if the stream was cut
    async with asyncio.timeout(20), streaming.session.get(streaming.url + STREAM) as response:
        assert b"data:" not in await response.content.read()


async def test_a_closed_stream_leaves_nothing_behind(streaming: Served) -> None:
    """A leaked subscriber would keep pages of memory that could otherwise be returned to the system."""
    await streaming.write_live("1")
    async with streaming.session.get(streaming.url + STREAM) as response:
        assert await line(response, b"data:")
        (subscriber,) = [weakref.ref(each) for each in gc.get_objects() if isinstance(each, Subscriber)]

    def gone() -> bool:
        gc.collect()
        return subscriber() is None

    await eventually(gone)
