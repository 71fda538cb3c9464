"""`GET /history/NAME`: the last terms of a lease as JSON, over real sockets and a real Redis."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from sidecar.redis.store import history_of
from tests.sidecar.conftest import client_of
from tests.support.served_control import KEYS, QUICK, Served, served
from tests.support.waiting import eventually


@pytest.fixture
async def sidecar(redis_server: RedisServer, redis: Redis) -> AsyncIterator[Served]:
    async with served(redis_server) as sidecar:
        yield sidecar


async def ends(sidecar: Served) -> list[tuple[str, str, str | None]]:
    return [(term["holder"], term["end"], term["reason"]) for term in (await sidecar.get("/history/tracker"))["terms"]]


async def test_a_term_is_reported_while_it_lasts_and_after_its_end(sidecar: Served) -> None:
    token = (await sidecar.lead())["token"]
    answer = await sidecar.get("/history/tracker")
    [term] = answer["terms"]
    assert answer["lease"] == "tracker"
    assert set(term) == {"token", "holder", "acquired_at", "released_at", "end", "reason"}
    assert (term["token"], term["holder"], term["end"]) == (token, "a", "holding")
    assert (term["released_at"], term["reason"]) == (None, None)
    await sidecar.resign()
    await eventually(lambda: _is(sidecar, [("a", "released", "resigned")]))
    [term] = (await sidecar.get("/history/tracker"))["terms"]
    assert term["acquired_at"] <= term["released_at"]
    assert term["released_at"].endswith("Z")


async def test_a_history_request_creates_no_demand(sidecar: Served) -> None:
    assert await ends(sidecar) == []
    assert await sidecar.state() == "waiting"


async def test_an_unknown_lease_is_refused_with_the_known_names(sidecar: Served) -> None:
    status, answer = await sidecar.refusal("GET", "/history/none")
    assert (status, answer["leases"]) == (404, list(KEYS))


async def test_an_error_of_redis_is_reported_in_json_with_its_cause(sidecar: Served, redis: Redis) -> None:
    redis.set(history_of(KEYS["tracker"]), "x")
    status, answer = await sidecar.refusal("GET", "/history/tracker")
    assert status == 503
    assert answer["error"].startswith("the history of tracker cannot be read: XREVRANGE: WRONGTYPE")
    await sidecar.lead()
    assert (await sidecar.metric('sidecar_history{history="refused"}')) == 1, "the refused append is reported"


async def test_an_unreachable_redis_is_reported_in_json_with_its_cause(any_redis_of_its_own: RedisServer) -> None:
    async with served(any_redis_of_its_own, timings=QUICK) as sidecar:
        await sidecar.lead()
        any_redis_of_its_own.kill()
        status, answer = await sidecar.refusal("GET", "/history/tracker")
        assert status == 503
        assert answer["error"].startswith("the history of tracker cannot be read: ")
        assert "\n" not in answer["error"]


async def test_many_requests_cost_redis_one_read_a_second(sidecar: Served, redis_server: RedisServer) -> None:
    with client_of(redis_server) as redis, redis.monitor() as monitor:
        for _ in range(20):
            await asyncio.gather(*(sidecar.get("/history/tracker") for _ in range(5)))
        redis.echo("the end")
        reads = 0
        while "the end" not in (line := str(monitor.next_command()["command"])):
            reads += line.startswith("XREVRANGE")
    assert 1 <= reads <= 20, "the number of reads for a hundred requests"


async def _is(sidecar: Served, expected: list[tuple[str, str, str | None]]) -> bool:
    return await ends(sidecar) == expected
