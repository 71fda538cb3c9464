"""The store over a network that delays, loses, cuts and leads elsewhere."""

from collections.abc import AsyncIterator

import pytest
from redis import Redis

from ops.local.servers import RedisServer, free_port
from sidecar.clock import elapsed
from sidecar.failures import Failure
from sidecar.protocol import Call, Kind, Outcome, Reply, Timings
from sidecar.redis_store import KeyedCall, fence_of
from tests.proxy import Proxy
from tests.sidecar.conftest import client_of
from tests.sidecar.storing import KEY, TIMINGS, Storing, at_port, storing
from tests.waiting import ROUNDS, eventually

TIMINGS_OF_A_LONG_LEASE = Timings(ttl=60.0, heartbeat=2.0, grant_ttl=1.0, call_limit=0.5)
"""Its key does not expire, however long the machine stands still."""


@pytest.fixture
async def proxy(any_redis: Redis, any_server: RedisServer) -> AsyncIterator[Proxy]:
    async with Proxy(any_server.port) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: Proxy) -> AsyncIterator[Storing]:
    async with storing(at_port(proxy.port)) as store:
        yield store


async def test_the_calls_of_a_round_trip_are_answered_in_order(store: Storing, any_redis: Redis) -> None:
    any_redis.set("held", "b", ex=30)
    any_redis.lpush("broken", "x")
    now = elapsed()
    calls = [KeyedCall(key, Call(Kind.ACQUIRE, now, now + 5)) for key in ("held", "free", "broken")]
    results = await store.store.execute(calls)
    assert [result.outcome for result in results if isinstance(result, Reply)] == ["held", "acquired", "wrong_type"]


async def test_a_call_is_given_up_at_its_own_limit_where_nothing_answers(store: Storing, proxy: Proxy) -> None:
    """The quickest of three counts: a machine that is busy only makes them slower."""
    proxy.black_hole()
    took = []
    for _ in range(3):
        began = elapsed()
        failure = await store.timeout(Kind.ACQUIRE)
        took.append(elapsed() - began)
        assert not failure.may_execute, "it was not even sent"
    assert TIMINGS.call_limit * 0.9 <= min(took) < TIMINGS.call_limit + 0.4


async def test_a_round_trip_is_given_up_at_the_earliest_of_its_limits(store: Storing, proxy: Proxy) -> None:
    assert await store.outcome(Kind.LOOK) is Outcome.VACANT
    proxy.replies.hold()
    began = elapsed()
    calls = [KeyedCall(KEY, Call(Kind.ACQUIRE, began, began + limit)) for limit in (60.0, 1.0)]
    results = await store.store.execute(calls)
    assert elapsed() - began < 20
    assert all(isinstance(result, Failure) and result.may_execute for result in results)


async def test_an_acquire_whose_reply_was_lost_finds_its_own_term(
    store: Storing, proxy: Proxy, any_redis: Redis
) -> None:
    assert await store.outcome(Kind.LOOK) is Outcome.VACANT
    proxy.replies.lose()
    assert (await store.timeout(Kind.ACQUIRE, limit=2.0)).may_execute
    token = any_redis.hget(fence_of(KEY), "token")
    assert any_redis.get(KEY) == "a"
    proxy.flow()
    assert await store.outcome(Kind.ACQUIRE) is Outcome.ADOPTED
    assert str(store.token) == token


@pytest.mark.parametrize("kind", [Kind.ACQUIRE, Kind.RENEW, Kind.RELEASE])
async def test_what_was_given_up_and_arrives_late_has_no_effect(proxy: Proxy, any_redis: Redis, kind: Kind) -> None:
    async with storing(at_port(proxy.port), timings=TIMINGS_OF_A_LONG_LEASE) as store:
        assert await store.outcome(Kind.LOOK) is Outcome.VACANT
        if kind is not Kind.ACQUIRE:
            assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
            any_redis.pexpire(KEY, 40_000)
        before = any_redis.get(KEY), any_redis.hgetall(fence_of(KEY))
        evals = _scripts_run(any_redis)
        proxy.requests.hold()
        await store.timeout(kind)
        proxy.flow()
        await eventually(lambda: _scripts_run(any_redis) > evals)
        assert (any_redis.get(KEY), any_redis.hgetall(fence_of(KEY))) == before
        assert any_redis.pttl(KEY) <= 40_000


async def test_a_server_that_was_frozen_past_the_limit_executes_nothing_late(any_redis_of_its_own: RedisServer) -> None:
    with client_of(any_redis_of_its_own) as redis:
        async with storing(at_port(any_redis_of_its_own.port)) as store:
            assert await store.outcome(Kind.LOOK) is Outcome.VACANT
            evals = _scripts_run(redis)
            any_redis_of_its_own.pause()
            await store.timeout(Kind.ACQUIRE)
            any_redis_of_its_own.resume()
            await eventually(lambda: _scripts_run(redis) > evals)
            assert redis.dbsize() == 0
            assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED


async def test_a_slow_answer_does_not_spoil_the_next_calls_deadline_for_good(proxy: Proxy) -> None:
    """The estimate of the server's clock lags by what the last reply was late; a call that is told so learns."""
    limit = 3.0
    for _ in range(ROUNDS):
        async with storing(at_port(proxy.port), timings=Timings(call_limit=limit)) as store:
            assert await store.outcome(Kind.ACQUIRE) in (Outcome.ACQUIRED, Outcome.ADOPTED)
            proxy.replies.delay = limit * 2 / 3
            slow = await store.call(Kind.RENEW, limit=limit)
            proxy.flow()
            proxy.requests.delay = limit * 2 / 3
            late = await store.call(Kind.RENEW, limit=limit)
            renewed = await store.call(Kind.RENEW, limit=limit)
            proxy.flow()
        results = (slow, late, renewed)
        if not any(isinstance(result, Failure) and result.kind == "timeout" for result in results):
            break  # else one of them was slower still, where the machine stood still for a second
    assert isinstance(slow, Reply)
    assert isinstance(late, Reply)
    assert isinstance(renewed, Reply)
    assert (late.outcome, renewed.outcome) == (Outcome.LATE, Outcome.RENEWED)


async def test_a_half_open_connection_is_given_up_and_another_one_made(store: Storing, proxy: Proxy) -> None:
    assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
    proxy.requests.lose()
    await store.timeout(Kind.RENEW)
    proxy.flow()
    assert await store.outcome(Kind.RENEW) is Outcome.RENEWED
    assert proxy.accepted == 2


async def test_a_connection_that_is_cut_is_made_anew(store: Storing, proxy: Proxy) -> None:
    assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
    await proxy.cut()
    assert (await store.failure(Kind.RENEW)).kind == "connection"
    assert await store.outcome(Kind.RENEW) is Outcome.RENEWED


async def test_a_connection_that_is_refused_leaves_nothing_unresolved(store: Storing, proxy: Proxy) -> None:
    await proxy.refuse()
    failure = await store.failure(Kind.ACQUIRE)
    assert (failure.kind, failure.may_execute) == ("connection", False)
    await proxy.accept()
    assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED


async def test_where_the_name_leads_elsewhere_after_a_failover_the_new_server_is_asked(
    store: Storing, proxy: Proxy, redis_of_its_own: RedisServer
) -> None:
    assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
    proxy.target = redis_of_its_own.port
    await proxy.cut()
    await store.failure(Kind.RENEW)
    assert await store.outcome(Kind.RENEW) is Outcome.VACANT


async def test_a_server_that_may_evict_the_lease_is_known_by_its_policy(any_redis: Redis, store: Storing) -> None:
    await store.outcome(Kind.LOOK)
    assert store.store.eviction_policy == "noeviction"
    any_redis.config_set("maxmemory-policy", "volatile-lru")
    try:
        await store.store.close()
        await store.outcome(Kind.LOOK)
        assert store.store.eviction_policy == "volatile-lru"
    finally:
        any_redis.config_set("maxmemory-policy", "noeviction")


async def test_a_port_that_nobody_listens_on_fails_at_once() -> None:
    async with storing(at_port(free_port())) as store:
        assert (await store.failure(Kind.ACQUIRE)).kind == "connection", "it did not wait until its limit"


def _scripts_run(redis: Redis) -> int:
    stats = redis.info("commandstats").get("cmdstat_eval", {})
    return int(stats.get("calls", 0))
