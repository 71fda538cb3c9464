"""Held requests: what ends them, how long they last, and that they count as demand."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from redis import Redis

from ops.local.servers import RedisServer, free_port
from runtime.clock import elapsed
from sidecar.protocol import YIELD_FOR, Call, Timings
from sidecar.redis.watch import WatchMode
from tests.support.served_control import KEYS, QUICK, TIMINGS, Served, served
from tests.support.waiting import eventually, undisturbed

SEEN_BY_THE_WATCH = Timings(ttl=120.0, heartbeat=40.0, grant_ttl=5.0, call_limit=5.0)
"""Timings under which only the watch reports a change within seconds."""
PATIENT = Timings(ttl=30.0, heartbeat=1.0, grant_ttl=15.0, call_limit=5.0)
"""Timings under which no grant ends within seconds."""
FORGETFUL = Timings(ttl=30.0, heartbeat=1.0, grant_ttl=0.5, call_limit=5.0)
"""Timings under which demand ends soon, but the key does not expire."""


@pytest.fixture
async def sidecar(redis_server: RedisServer, redis: Redis, request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    """A sidecar; the parameter, if given, is its timings."""
    async with served(redis_server, timings=getattr(request, "param", TIMINGS)) as sidecar:
        await eventually(lambda: sidecar.watch.mode is WatchMode.TRACKING)
        yield sidecar


def timed(timings: Timings) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("sidecar", [timings], ids=[f"{timings.grant_ttl:g} s"], indirect=True)


async def follow(sidecar: Served, redis: Redis, name: str = "tracker") -> str:
    """Follow another holder; return the version."""
    redis.set(KEYS[name], "b", ex=60)
    answer = await sidecar.get(f"/is-leader/{name}")
    while answer["holder"] != "b":
        answer = await sidecar.get(f"/is-leader/{name}", wait=1, version=answer["version"])
    return str(answer["version"])


async def test_a_call_that_fails_before_the_first_reply_of_redis_ends_the_hold(redis_server: RedisServer) -> None:
    """The client library waits at most a second for its first answer, and then logs that the leader is unknown."""
    patient = Timings(ttl=120.0, heartbeat=40.0, grant_ttl=5.0, call_limit=20.0)
    async with served(redis_server, timings=patient, calls=free_port()) as sidecar:  # nothing listens there
        for path in ("/is-leader/tracker", "/is-leader"):
            asked_at = elapsed()
            await sidecar.get(path)
            assert elapsed() - asked_at < patient.call_limit / 2
        assert (await sidecar.get("/is-leader/tracker"))["state"] == "disconnected"


@timed(SEEN_BY_THE_WATCH)
async def test_a_request_is_held_until_the_lease_changes(sidecar: Served, redis: Redis) -> None:
    version = await follow(sidecar, redis)
    held = asyncio.create_task(sidecar.get("/is-leader/tracker", wait=30, version=version))
    await eventually(lambda: sidecar.candidate._leases["tracker"]._demand.holds == 1)
    changed_at = elapsed()
    redis.set(KEYS["tracker"], "DISABLED", ex=60)
    answer = await held
    assert elapsed() - changed_at < SEEN_BY_THE_WATCH.heartbeat / 2
    assert (answer["state"], answer["holder"]) == ("disabled", "DISABLED")
    assert answer["version"] != version


@timed(Timings(ttl=30.0, heartbeat=1.0, grant_ttl=2.0, call_limit=5.0))
async def test_a_held_request_gets_the_first_answer_of_a_new_term(sidecar: Served, redis: Redis) -> None:
    async def is_held() -> None:
        version = await follow(sidecar, redis)
        sent_at = elapsed()
        held = asyncio.create_task(sidecar.get("/is-leader/tracker", wait=30, version=version))
        await eventually(lambda: elapsed() > sent_at + 2.0)
        redis.delete(KEYS["tracker"])
        answer = await held
        assert answer["is_leader"] is True
        assert sent_at + answer["expires_in"] > elapsed(), "the grant had already expired"
        assert sent_at + answer["expires_in"] <= elapsed() + 2.0

    await undisturbed(is_held, bears=1.0)


async def test_a_request_with_another_version_is_answered_at_once(sidecar: Served, redis: Redis) -> None:
    await follow(sidecar, redis)
    async with asyncio.timeout(25):
        for version in ("0-0", "ffffffff-1"):
            await sidecar.get("/is-leader/tracker", wait=30, version=version)
        await sidecar.get("/is-leader/tracker", wait=30)
        await sidecar.get("/is-leader/tracker")


async def test_without_a_change_a_request_is_held_for_its_whole_wait(sidecar: Served, redis: Redis) -> None:
    version = await follow(sidecar, redis)
    began = elapsed()
    answer = await sidecar.get("/is-leader/tracker", wait=0.3, version=version)
    assert 0.3 <= elapsed() - began < 20
    assert answer["version"] == version


async def test_while_leading_a_request_is_held_for_half_a_grant_at_most(sidecar: Served) -> None:
    async def is_held() -> None:
        version = (await sidecar.lead())["version"]
        began = elapsed()
        answer = await sidecar.get("/is-leader/tracker", wait=30, version=version)
        assert TIMINGS.grant_ttl / 2 <= elapsed() - began < TIMINGS.grant_ttl
        assert answer["is_leader"] is True

    await undisturbed(is_held, bears=1.5)
    began = elapsed()
    await sidecar.get("/is-leader", wait=30, version=(await sidecar.get("/is-leader"))["version"])
    assert elapsed() - began < 20


@timed(Timings(ttl=30.0, heartbeat=1.0, grant_ttl=2.0, call_limit=5.0))
async def test_a_client_refused_because_of_another_clients_grant_is_answered_once_that_grant_ends(
    sidecar: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refused client has the version of the other client's term.

    This version does not change before the other client's grant ends.
    """
    waits: list[float] = []
    hold = sidecar.candidate._hold

    async def noted(names: Sequence[str], version: int, wait: float) -> None:
        waits.append(wait)
        await hold(names, version, wait)

    async def ask(client: str, **query: Any) -> Any:
        url, headers = f"{sidecar.url}/is-leader/tracker", {"X-Lease-Client": client}
        async with sidecar.session.get(url, headers=headers, params=query) as response:
            return await response.json()

    answer = await ask("dead")
    while not answer["is_leader"]:
        answer = await ask("dead", wait=1, version=answer["version"])
    refused = await ask("successor")
    assert (refused["is_leader"], refused["version"]) == (False, answer["version"])
    sidecar.candidate._leases[
        "tracker"
    ]._demand.hold()  # a request of another client is held; otherwise the lease would be released
    monkeypatch.setattr(sidecar.candidate, "_hold", noted)
    over = sidecar.candidate._leases["tracker"]._grants._named_until
    await eventually(lambda: elapsed() >= over)
    answer = await ask("successor", wait=30, version=refused["version"])
    assert waits == [0]
    assert answer["version"] != refused["version"]


@pytest.mark.slow
@timed(Timings(ttl=30.0, heartbeat=1.0, grant_ttl=3.0, call_limit=5.0))
async def test_a_leader_whose_client_only_holds_requests_keeps_leading(sidecar: Served) -> None:
    """Wait for longer than the demand of one request lasts; the term is renewed the whole time."""

    async def leads_on() -> None:
        answer = await sidecar.lead()
        token, began = answer["token"], elapsed()
        until = began + sidecar.candidate._leases["tracker"].remaining(began)
        while elapsed() < began + 6.5:
            answer = await sidecar.get("/is-leader/tracker", wait=30, version=answer["version"])
            assert (answer["is_leader"], answer["token"]) == (True, token)
        now = elapsed()
        assert now + sidecar.candidate._leases["tracker"].remaining(now) > until + 2.0

    await undisturbed(leads_on, bears=1.0)


async def test_a_request_for_all_leases_is_held_until_any_lease_changes(sidecar: Served, redis: Redis) -> None:
    for name in KEYS:
        await follow(sidecar, redis, name)
    version = (await sidecar.get("/is-leader"))["version"]
    held = asyncio.create_task(sidecar.get("/is-leader", wait=30, version=version))
    await eventually(lambda: sidecar.candidate._leases["scheduler"]._demand.holds == 1)
    redis.set(KEYS["scheduler"], "c", ex=60)
    answer = await held
    assert answer["leases"]["scheduler"]["holder"] == "c"
    assert answer["leases"]["tracker"]["holder"] == "b"
    assert answer["version"] != version


@timed(PATIENT)
async def test_a_resign_answers_held_requests_and_releases_at_once(sidecar: Served, redis: Redis) -> None:
    version = (await sidecar.lead())["version"]
    held = asyncio.create_task(sidecar.get("/is-leader/tracker", wait=30, version=version))
    await eventually(lambda: sidecar.candidate._leases["tracker"]._demand.holds == 1)
    resigned_at = elapsed()
    await sidecar.resign()
    assert (await held)["is_leader"] is False
    await eventually(lambda: redis.get(KEYS["tracker"]) is None)
    assert elapsed() - resigned_at < PATIENT.grant_ttl
    assert await sidecar.state() == "waiting", "a request that a resign answers leaves no demand"


async def test_after_a_resign_the_sidecar_waits_one_second_before_it_campaigns(sidecar: Served) -> None:
    await sidecar.lead()
    resigned_at = elapsed()
    await sidecar.resign()
    await sidecar.lead()
    assert elapsed() - resigned_at >= YIELD_FOR


@timed(FORGETFUL)
async def test_a_client_that_disconnects_during_a_held_request_leaves_no_demand(sidecar: Served, redis: Redis) -> None:
    async def held_back() -> asyncio.Task[dict[str, Any]]:
        version = await follow(sidecar, redis)
        held = asyncio.create_task(sidecar.get("/is-leader/tracker", wait=30, version=version))
        await eventually(lambda: sidecar.candidate._leases["tracker"]._demand.holds == 1)
        return held

    held = await undisturbed(held_back, bears=0.5)  # a request after the end of demand is answered at once
    await eventually(lambda: elapsed() > sidecar.candidate._leases["tracker"]._demand.until)
    assert await sidecar.state() == "following", "a held request counts as demand"
    held.cancel()
    with suppress(asyncio.CancelledError):
        await held
    await eventually(lambda: sidecar.candidate._leases["tracker"]._demand.holds == 0)
    assert await sidecar.state() == "waiting"


@timed(QUICK)
async def test_the_lease_of_a_silent_client_is_released_when_its_grant_ends(sidecar: Served, redis: Redis) -> None:
    await sidecar.lead()
    await eventually(lambda: redis.get(KEYS["tracker"]) is None)
    assert await sidecar.state() == "waiting"


async def test_a_drain_answers_held_requests(sidecar: Served) -> None:
    version = (await sidecar.lead())["version"]
    held = asyncio.create_task(sidecar.get("/is-leader/tracker", wait=30, version=version))
    await eventually(lambda: sidecar.candidate._leases["tracker"]._demand.holds == 1)
    sidecar.candidate.drain()
    answer = await held
    assert (answer["is_leader"], answer["state"]) == (False, "draining")


async def test_a_version_is_never_repeated_after_a_restart(redis_server: RedisServer, redis: Redis) -> None:
    seen: set[str] = set()
    for _ in range(3):
        async with served(redis_server) as sidecar:
            now = {(await sidecar.get("/is-leader/tracker"))["version"], (await sidecar.lead())["version"]}
            now |= {lease["version"] for lease in (await sidecar.get("/is-leader"))["leases"].values()}
            assert not now & seen
            seen |= now


async def test_many_held_requests_are_all_answered(sidecar: Served, redis: Redis) -> None:
    version = await follow(sidecar, redis)
    held = [asyncio.create_task(sidecar.get("/is-leader/tracker", wait=30, version=version)) for _ in range(50)]
    await eventually(lambda: sidecar.candidate._leases["tracker"]._demand.holds == 50)
    redis.delete(KEYS["tracker"])
    answers = await asyncio.gather(*held)
    assert all(answer["is_leader"] for answer in answers)
    assert len({answer["token"] for answer in answers}) == 1
    assert sidecar.candidate._leases["tracker"]._demand.holds == 0


async def test_an_idle_sidecar_sleeps(sidecar: Served, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    version = await follow(sidecar, redis)
    rounds = 0
    lease = sidecar.candidate._leases["tracker"]
    next_call = lease.next_call

    def counted(now: float) -> Call | None:
        nonlocal rounds
        rounds += 1
        return next_call(now)

    monkeypatch.setattr(lease, "next_call", counted)
    await sidecar.get("/is-leader/tracker", wait=1.5 * TIMINGS.heartbeat, version=version)
    assert 1 <= rounds <= 12
