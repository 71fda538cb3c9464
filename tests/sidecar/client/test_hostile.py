"""Hostile listeners on the sidecar's port: the client does not lead, sends few requests, and recovers."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web

from ops.local.servers import free_port
from sidecar.client import Leadership, LeaseClient
from sidecar.client.sidecar_api import BURST, LONGEST_ANSWER, PAUSE, RATE, parse
from sidecar.client.unknown import Unknown
from tests.support.hostile_sidecar import NAME, FakeSidecar, Work, on_the_clock
from tests.support.waiting import eventually

GRANT: dict[str, Any] = {
    "lease": NAME,
    "is_leader": True,
    "instance_id": "task-a",
    "holder": "task-a",
    "token": 7,
    "expires_in": 5.0,
    "state": "leading",
    "version": "boot/1",
}
DENIAL = GRANT | {"is_leader": False, "holder": "task-b", "token": None, "expires_in": None, "state": "following"}

INVALID_ANSWERS: dict[str, bytes] = {
    "empty": b"",
    "HTML": b"<!doctype html><title>It works!</title>",
    "half of it": json.dumps(GRANT).encode()[:60],
    "not UTF-8": b'{"lease": "\xff\xfe"}',
    "a list": b"[]",
    "a bare true": b"true",
    "a deep nest": b"[" * 10_000,
    "a number of too many digits": b'{"token": ' + b"9" * 5000 + b"}",
    **{
        f"{field} is {value!r:.20}": json.dumps(GRANT | {field: value}).encode()
        for field, value in [
            ("lease", "daily_scheduler"),
            ("lease", None),
            ("is_leader", "true"),
            ("is_leader", 1),
            ("is_leader", None),
            ("instance_id", ""),
            ("instance_id", None),
            ("instance_id", 5),
            ("holder", "task-b"),
            ("holder", None),
            ("token", None),
            ("token", True),
            ("token", 0),
            ("token", -1),
            ("token", 7.0),
            ("token", "7"),
            ("token", 2**63),
            ("expires_in", None),
            ("expires_in", True),
            ("expires_in", "5"),
            ("expires_in", 0),
            ("expires_in", -1.0),
            ("expires_in", float("nan")),
            ("expires_in", float("inf")),
            ("expires_in", float("-inf")),
            ("expires_in", 60.1),
            ("expires_in", 10**400),
            ("state", None),
            ("version", None),
            ("version", 3),
        ]
    },
    "1e999 seconds": json.dumps(GRANT).replace("5.0", "1e999").encode(),
    **{
        f"no {field}": json.dumps({key: value for key, value in GRANT.items() if key != field}).encode()
        for field in GRANT
    },
    "a token without leading": json.dumps(DENIAL | {"token": 7}).encode(),
    "a grant without leading": json.dumps(DENIAL | {"expires_in": 5.0}).encode(),
    "no holder field": json.dumps({key: value for key, value in DENIAL.items() if key != "holder"}).encode(),
}


@pytest.mark.parametrize("invalid", INVALID_ANSWERS)
def test_an_answer_that_breaks_the_contract_is_unknown(invalid: str) -> None:
    with pytest.raises(Unknown):
        parse(INVALID_ANSWERS[invalid], NAME, 100.0)


def test_an_answer_that_keeps_the_contract_is_accepted() -> None:
    answer = parse(json.dumps(GRANT | {"more": "fields"}).encode(), NAME, 100.0)
    assert (answer.token, answer.deadline, answer.instance_id) == (7, 105.0, "task-a")
    answer = parse(json.dumps(GRANT | {"expires_in": 60}).encode(), NAME, 100.0)
    assert answer.deadline == 160.0
    answer = parse(json.dumps(DENIAL | {"holder": None}).encode(), NAME, 100.0)
    assert (answer.token, answer.deadline, answer.holder, answer.state) == (None, None, None, "following")


Behaviour = Callable[[FakeSidecar], Callable[[web.Request], Awaitable[web.StreamResponse]]]


def _answers_with(body: bytes) -> Behaviour:
    def of(sidecar: FakeSidecar) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def behave(request: web.Request) -> web.StreamResponse:
            return web.Response(body=body, content_type="application/json")

        return behave

    return of


def _responds(**response: Any) -> Behaviour:
    def of(sidecar: FakeSidecar) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def behave(request: web.Request) -> web.StreamResponse:
            return web.Response(**({"body": json.dumps(sidecar.answer()).encode()} | response))

        return behave

    return of


def _new_error_each_time(sidecar: FakeSidecar) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def behave(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": f"no route (request {len(sidecar.polls)})"}, status=404)

    return behave


def _dies(sidecar: FakeSidecar) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 500
        await response.prepare(request)
        await response.write(json.dumps(sidecar.answer()).encode()[:40])
        assert request.transport is not None
        request.transport.abort()
        return response

    return behave


def _endless_body(sidecar: FakeSidecar) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                sent["flood"] = sent.get("flood", 0) + 4096
                await response.write(b" " * 4096)
        return response

    sent: dict[str, int] = {}
    return behave


def _compressed_bomb(sidecar: FakeSidecar) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.Response(body=json.dumps(sidecar.answer()).encode() + b" " * 10_000_000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    return behave


HOSTILE: dict[str, Behaviour] = {
    "silent": lambda sidecar: sidecar.silence,
    "HTML": _answers_with(INVALID_ANSWERS["HTML"]),
    "another lease": _answers_with(INVALID_ANSWERS["lease is 'daily_scheduler'"]),
    "leader without a token": _answers_with(INVALID_ANSWERS["token is None"]),
    "a huge body": _answers_with(json.dumps(GRANT).encode() + b" " * LONGEST_ANSWER),
    "an endless body": _endless_body,
    "a compressed bomb": _compressed_bomb,
    "HTTP 201": _responds(status=201),
    "HTTP 404": _responds(status=404),
    "HTTP 404 with another text each time": _new_error_each_time,
    "HTTP 500": _responds(status=500),
    "a redirect": _responds(status=307, headers={"Location": "/an/honest/answer"}),
    "an answer cut in the middle": _dies,
}


@asynccontextmanager
async def campaigning(url: str, work: Work, *, stop_before: float = 0.5) -> AsyncIterator[Leadership]:
    async with LeaseClient(url, stop_before=stop_before) as client:
        lead = client.leadership(NAME)
        run = asyncio.create_task(lead.run(work))
        try:
            yield lead
        finally:
            run.cancel()
            with suppress(asyncio.CancelledError):
                await run


@pytest.mark.parametrize("kind", HOSTILE)
@on_the_clock(bears=0.5)
async def test_a_hostile_sidecar_makes_no_client_lead_and_gets_few_requests(
    sidecar: FakeSidecar, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    await sidecar.elect(7)
    sidecar.misbehave = HOSTILE[kind](sidecar)
    work = Work(sidecar.events)
    async with campaigning(sidecar.url, work) as lead:
        await eventually(lambda: len(sidecar.polls) >= 2)
        asked = len(sidecar.polls)
        await asyncio.sleep(0.3)
        assert len(sidecar.polls) - asked <= 4
        assert work.terms == []
        assert (lead.is_leader, lead.token, lead.holder, lead.state) == (False, None, None, None)
        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) == 1, "one log line for the change, not for each request"
        assert warnings[0].name == "sidecar.client"

        sidecar.misbehave = None
        await eventually(lambda: work.running == 1)
        assert lead.token == 7
    assert sidecar.events == ["begin 7", "cancel 7", "end 7", "resign"]


@pytest.mark.parametrize("kind", HOSTILE)
@on_the_clock(bears=0.5)
async def test_work_ends_within_the_grant_when_the_sidecar_turns_hostile(sidecar: FakeSidecar, kind: str) -> None:
    sidecar.grant = 3.0
    work = Work(sidecar.events)
    async with campaigning(sidecar.url, work, stop_before=0.75):
        await sidecar.elect(7)
        await eventually(lambda: work.running == 1)
        began, asked = time.monotonic(), len(sidecar.polls)
        sidecar.misbehave = HOSTILE[kind](sidecar)
        await eventually(lambda: bool(work.left))
        assert work.left[0] > 0
        assert len(sidecar.polls) - asked <= 20 + (time.monotonic() - began) / PAUSE[0]


@pytest.mark.parametrize("version", ["the same", "another each time"])
@pytest.mark.parametrize("leads", [True, False])
async def test_a_sidecar_that_ignores_wait_gets_few_requests(sidecar: FakeSidecar, version: str, leads: bool) -> None:
    if leads:
        await sidecar.elect(7)

    async def at_once(request: web.Request) -> web.StreamResponse:
        changes: dict[str, Any] = {"version": str(len(sidecar.polls))} if version != "the same" else {}
        return web.json_response(sidecar.answer(**changes))

    sidecar.misbehave = at_once
    work = Work(sidecar.events)
    async with campaigning(sidecar.url, work) as lead:
        await eventually(lambda: lead.state is not None)
        began, asked = time.monotonic(), len(sidecar.polls)
        await asyncio.sleep(1.0)
        assert len(sidecar.polls) - asked <= BURST + RATE * (time.monotonic() - began) + 1
        assert lead.is_leader == leads


async def test_a_sidecar_that_grants_and_revokes_at_once_gets_few_requests(sidecar: FakeSidecar) -> None:
    async def grant_and_revoke(request: web.Request) -> web.StreamResponse:
        token = len(sidecar.polls)
        if token % 2:
            return web.json_response(GRANT | {"token": token, "version": str(token)})
        return web.json_response(DENIAL | {"version": str(token)})

    sidecar.misbehave = grant_and_revoke
    work = Work(sidecar.events)
    async with campaigning(sidecar.url, work):
        await eventually(lambda: bool(work.terms))
        began, asked = time.monotonic(), len(sidecar.polls)
        await asyncio.sleep(1.0)
        assert len(sidecar.polls) - asked <= BURST + RATE * (time.monotonic() - began) + 1


@on_the_clock(bears=0.5)
async def test_the_first_request_after_a_failure_does_not_wait(sidecar: FakeSidecar) -> None:
    work = Work([])
    async with campaigning(sidecar.url, work) as lead:
        await eventually(lambda: len(sidecar.polls) == 2)
        sidecar.misbehave = HOSTILE["HTTP 500"](sidecar)
        await sidecar.follow("task-c")  # ends the held request
        await eventually(lambda: len(sidecar.polls) >= 4)
        sidecar.misbehave = None
        await eventually(lambda: lead.holder == "task-c")
    queries = [query for _, query in sidecar.polls]
    assert "wait" in queries[2]
    assert queries[3] == {}


@on_the_clock(bears=0.5)
async def test_a_port_without_a_listener_is_retried_quickly_but_not_too_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    work = Work([])
    pauses: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        pauses.append((low, high))
        return low

    async with LeaseClient(f"http://127.0.0.1:{free_port()}", uniform=uniform) as client:
        lead = client.leadership(NAME)
        run = asyncio.create_task(lead.run(work))
        await eventually(lambda: len(pauses) >= 5)
        assert not lead.is_leader
        assert lead.state is None
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run  # the resign reaches no sidecar: this is not an error
    assert set(pauses) == {(0.1, 0.5)}
    texts = [record.getMessage() for record in caplog.records if record.name == "sidecar.client"]
    assert len(texts) == 2, texts
    assert "the leader is unknown: no answer (ClientConnectorError)" in texts[0]
    assert "the resign got no answer" in texts[1]


BANNERS = {
    "an SSH server": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a Redis": b"-ERR unknown command 'GET'\r\n",
    "an SMTP server": b"220 mail ESMTP\r\n",
    "binary": bytes(range(256)) * 4,
    "an endless status line": b"HTTP/1.1 200 " + b"O" * 100_000,
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000,
    "an invalid length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{}",
    "bad chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    "a protocol switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "an HTTP/0.9 answer": b"<html>",
    "an end without an answer": b"",
}


@pytest.mark.parametrize("banner", BANNERS)
async def test_another_program_on_the_port_makes_no_client_lead(banner: str) -> None:
    calls = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(BANNERS[banner])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        work = Work([])
        async with campaigning(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", work) as lead:
            await eventually(lambda: calls >= 3)
            assert (lead.is_leader, lead.state, work.terms) == (False, None, [])


async def test_a_silent_listener_delays_the_end_of_run_by_at_most_a_second() -> None:
    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    async with server, LeaseClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        run = asyncio.create_task(client.leadership(NAME).run(Work([])))
        await asyncio.sleep(0.05)
        run.cancel()
        async with asyncio.timeout(20):  # the listener never answers
            with pytest.raises(asyncio.CancelledError):
                await run


async def test_a_resign_over_a_dead_connection_is_sent_again(sidecar: FakeSidecar) -> None:
    await sidecar.elect(1)
    async with LeaseClient(sidecar.url) as client:
        lead = client.leadership(NAME)
        await lead.resign()

        async def drop(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        tried = 0

        async def work(_: object) -> None:
            nonlocal tried
            tried += 1

        await sidecar.elect(2)
        sidecar.once_resigned = drop
        await lead.run(work)
    assert tried == 1
    assert sidecar.events == ["resign", "resign"]


async def test_no_request_is_sent_while_a_resign_may_still_arrive(sidecar: FakeSidecar) -> None:
    """A frozen sidecar that continues could apply the resign to the term that it grants next."""
    thawed, arrived = asyncio.Event(), asyncio.Event()

    async def frozen(_: web.Request) -> web.StreamResponse:
        arrived.set()
        await thawed.wait()
        sidecar.events.append("resign")
        return web.json_response({})

    async with LeaseClient(sidecar.url) as client:
        await sidecar.elect(1)
        sidecar.once_resigned = frozen
        lead = client.leadership(NAME)

        async def done(_: object) -> None:
            return

        async with asyncio.timeout(25):
            await lead.run(done)
            await arrived.wait()
            asked = len(sidecar.polls)
            again = asyncio.create_task(lead.run(Work([])))
            await eventually(lambda: lead._poll.trouble == "the resign is not answered yet")
            assert len(sidecar.polls) == asked
            thawed.set()
            await eventually(lambda: len(sidecar.polls) > asked)
            assert sidecar.events[-1] == "resign"
            again.cancel()
            with pytest.raises(asyncio.CancelledError):
                await again
