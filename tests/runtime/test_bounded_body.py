"""The body of an answer is read up to a limit, after decompression."""

import gzip
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from runtime.bounded_body import AnswerTooLarge, read_body

BODY = b"x" * 100_000


@pytest.fixture
async def response() -> AsyncIterator[aiohttp.ClientResponse]:
    """A compressed answer that decompresses to a much longer body."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(body=gzip.compress(BODY), headers={"Content-Encoding": "gzip"})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            yield response
    finally:
        await runner.cleanup()


async def test_a_body_at_the_limit_is_read_whole(response: aiohttp.ClientResponse) -> None:
    assert await read_body(response, len(BODY)) == BODY


async def test_a_body_over_the_limit_is_an_error(response: aiohttp.ClientResponse) -> None:
    with pytest.raises(AnswerTooLarge, match="too large"):
        await read_body(response, len(BODY) - 1)
