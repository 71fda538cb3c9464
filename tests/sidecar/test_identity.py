"""The instance id, from the metadata that ECS provides."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from aiohttp import web

from runtime.lookup import Lookups
from sidecar import identity
from sidecar.identity import instance_id

TASK = {
    "Cluster": "default",
    "TaskARN": "arn:aws:ecs:us-west-2:111122223333:task/default/158d1c8083dd49d6b527399fd6414f5c",
    "Family": "portfolio-api",
    "Revision": "5",
    "Containers": [],
    "SomethingNew": {},
}


class Metadata:
    """A metadata endpoint; `answer` is its handler."""

    def __init__(self) -> None:
        self.url = ""
        self.asked = 0
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.task

    async def task(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(TASK)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        return await self.answer(request)


@pytest.fixture
async def metadata(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Metadata]:
    monkeypatch.setattr(identity, "_LIMIT", 10.0)
    it = Metadata()
    app = web.Application()
    app.router.add_get("/v4/container/task", it.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    it.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v4/container"
    yield it
    await runner.cleanup()


async def test_the_instance_id_is_the_ecs_task_id_read_once(metadata: Metadata) -> None:
    assert await instance_id(None, metadata.url, Lookups()) == "158d1c8083dd49d6b527399fd6414f5c"
    assert metadata.asked == 1


async def test_a_configured_instance_id_is_used_without_reading_metadata(metadata: Metadata) -> None:
    assert await instance_id("me", metadata.url, Lookups()) == "me"
    assert metadata.asked == 0


async def test_outside_ecs_the_instance_id_is_random_and_unique() -> None:
    assert await instance_id(None, None, Lookups()) != await instance_id(None, None, Lookups())


async def test_metadata_that_arrives_in_pieces_is_read_completely(metadata: Metadata) -> None:
    whole = json.dumps(TASK | {"Containers": ["x" * 4000]}).encode()

    async def in_pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (whole[:2048], whole[2048:]):
            await response.write(piece)
            await asyncio.sleep(0.05)  # a pause between the pieces, as in a network
        return response

    metadata.answer = in_pieces
    assert await instance_id(None, metadata.url, Lookups()) == "158d1c8083dd49d6b527399fd6414f5c"


async def never(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def throttled(_: web.Request) -> web.StreamResponse:
    return web.Response(status=429, text="slow down")


async def page(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>", content_type="text/html")


async def without_arn(_: web.Request) -> web.StreamResponse:
    return web.json_response({"Cluster": "default"})


def with_arn(arn: object) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(TASK | {"TaskARN": arn})

    return answer


async def a_list(_: web.Request) -> web.StreamResponse:
    return web.json_response([1])


async def too_deep(_: web.Request) -> web.StreamResponse:
    return web.Response(text="[" * 100_000, content_type="application/json")


async def truncated(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(json.dumps(TASK).encode())
    if request.transport is not None:
        request.transport.close()
    return response


async def without_end(request: web.Request) -> web.StreamResponse:
    """The task, followed by endless blanks. A body that is cut off in the blanks is still valid JSON."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(json.dumps(TASK).encode())
    with suppress(ConnectionError):  # raised once the client has closed the connection
        while True:
            await response.write(b" " * 65536)
    return response


NO_ARN = [None, 5, "", "arn:task/", "arn:task/of two words", "arn:task/line\n", "arn:task/disabled", "x" * 129]
"""Values of TaskARN that give no valid instance id.

The value is missing, or is no text; or its last part is empty, is too long, has a space or a newline, or is "disabled".
"""


@pytest.mark.parametrize(
    "answer", [never, throttled, page, without_arn, a_list, too_deep, truncated, without_end, *map(with_arn, NO_ARN)]
)
async def test_unreadable_metadata_is_logged_and_a_random_id_is_used(
    metadata: Metadata,
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if answer is never:
        monkeypatch.setattr(identity, "_LIMIT", 1.5)
    metadata.answer = answer
    made_up = await instance_id(None, metadata.url, Lookups())
    assert made_up.startswith(f"{socket.gethostname()[:64]}-")
    assert metadata.asked == 1
    assert [record.levelname for record in caplog.records if record.name == identity.__name__] == ["WARNING"]
