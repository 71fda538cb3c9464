"""The requests and the log lines from the end of the work until `run` returns."""

import asyncio
import logging
from typing import Any

import pytest
from aiohttp import web

from sidecar.client import LeaseClient, Term
from sidecar.client.sidecar_api import SidecarApi
from tests.support.hostile_sidecar import NAME, FakeSidecar
from tests.support.waiting import eventually


@pytest.mark.parametrize("end", ["its own", "the cancellation of run"])
async def test_terms_end_and_begin_with_two_connections(sidecar: FakeSidecar, end: str) -> None:
    """At a resign the sidecar answers the held request, so the next term can use the connection of this request."""

    async def work(_: Term) -> None:
        await eventually(lambda: len(sidecar.polls) > polls + 1)
        await eventually(lambda: client._sidecar._session.connector._conns)  # type: ignore[union-attr] # one connection is idle
        if end != "its own":
            run.cancel()
            await asyncio.Event().wait()

    async with LeaseClient(sidecar.url) as client:
        for token in (1, 2, 3):
            polls = len(sidecar.polls)
            await sidecar.elect(token)
            run = asyncio.create_task(client.leadership(NAME).run(work))
            await asyncio.wait((run,))
    assert sidecar.events == ["resign"] * 3
    assert len({peer for _, peer in sidecar.peers}) == 2


async def test_no_request_follows_the_work_even_if_a_request_is_still_held(sidecar: FakeSidecar) -> None:
    held: list[web.Request] = []
    resigned = asyncio.Event()

    async def hold(request: web.Request) -> web.StreamResponse:
        held.append(request)
        await resigned.wait()
        return web.json_response(sidecar.answer())

    async def accept(_: web.Request) -> web.StreamResponse:
        resigned.set()
        await asyncio.sleep(0.02)
        return web.json_response({"resigned": True})

    async def work(_: Term) -> None:
        sidecar.misbehave = hold
        await eventually(lambda: held)

    await sidecar.elect(1)
    sidecar.once_resigned = accept
    async with LeaseClient(sidecar.url) as client:
        await client.leadership(NAME).run(work)
        await asyncio.sleep(0.05)
        assert len(held) == 1


async def test_a_held_request_is_cancelled_while_the_work_unwinds_for_long(sidecar: FakeSidecar) -> None:
    """A held request counts as demand, and its answer may be a grant."""
    gone = asyncio.Event()

    async def hold(_: web.Request) -> web.StreamResponse:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        raise AssertionError

    async def work(_: Term) -> None:
        sidecar.misbehave = hold
        await eventually(lambda: len(sidecar.polls) == 2)
        try:
            run.cancel()
            await asyncio.Event().wait()
        finally:
            await gone.wait()

    sidecar.grant = 30.0
    await sidecar.elect(1)
    async with LeaseClient(sidecar.url) as client:
        run = asyncio.create_task(client.leadership(NAME).run(work))
        async with asyncio.timeout(8):
            await asyncio.wait((run,))
    assert sidecar.events == ["resign"]


async def test_an_unanswered_request_after_the_resign_delays_nothing(sidecar: FakeSidecar) -> None:
    async def accept(_: web.Request) -> web.StreamResponse:
        return web.json_response({"resigned": True})

    async def work(_: Term) -> None:
        await eventually(lambda: len(sidecar.polls) == 2)

    sidecar.grant = 30.0  # the request is held for almost 10 s
    await sidecar.elect(1)
    sidecar.once_resigned = accept
    async with LeaseClient(sidecar.url) as client:
        async with asyncio.timeout(5):
            await client.leadership(NAME).run(work)


async def test_log_lines_are_written_after_the_first_step_of_the_work_and_after_the_resign(
    sidecar: FakeSidecar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    happened: list[str] = []
    request = SidecarApi._request

    def observed(api: SidecarApi, method: str, *path: str, **options: Any) -> Any:
        if method == "POST":
            happened.append("resign")
        return request(api, method, *path, **options)

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            happened.append(str(getattr(record, "event", None)))

    async def work(_: Term) -> None:
        happened.append("work")

    monkeypatch.setattr(SidecarApi, "_request", observed)
    caplog.set_level("INFO", "sidecar.client")
    recorder = Recorder()
    logging.getLogger("sidecar.client").addHandler(recorder)
    try:
        await sidecar.elect(1)
        async with LeaseClient(sidecar.url) as client:
            await client.leadership(NAME).run(work)
    finally:
        logging.getLogger("sidecar.client").removeHandler(recorder)
    assert happened == ["work", "work_began", "resign", "work_ended"]
