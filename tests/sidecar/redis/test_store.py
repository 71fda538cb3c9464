"""The store over a network that delays or loses messages, closes connections, or leads to another server."""

import asyncio
import select
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis

from ops.local.servers import RedisServer, free_port
from runtime.clock import elapsed
from sidecar.protocol import Call, Kind, Outcome, Reply, Timings
from sidecar.redis.failures import Failure
from sidecar.redis.store import KeyedCall, fence_of
from tests.sidecar.conftest import client_of, command
from tests.support.proxy import Proxy
from tests.support.storing import KEY, TIMINGS, Storing, at_port, storing
from tests.support.waiting import ROUNDS, eventually

TIMINGS_OF_A_LONG_LEASE = Timings(ttl=60.0, heartbeat=2.0, grant_ttl=1.0, call_limit=0.5)
"""Timings under which no key expires during a pause of the machine."""


@pytest.fixture
async def proxy(any_redis: Redis, any_server: RedisServer) -> AsyncIterator[Proxy]:
    async with Proxy(any_server.port) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: Proxy) -> AsyncIterator[Storing]:
    async with storing(at_port(proxy.port)) as store:
        yield store


async def test_replies_of_a_round_trip_are_in_the_order_of_its_calls(store: Storing, any_redis: Redis) -> None:
    any_redis.set("held", "b", ex=30)
    any_redis.lpush("broken", "x")
    now = elapsed()
    calls = [KeyedCall(key, Call(Kind.ACQUIRE, now, now + 5)) for key in ("held", "free", "broken")]
    results = await store.store.execute(calls)
    assert [result.outcome for result in results if isinstance(result, Reply)] == ["held", "acquired", "wrong_type"]


async def test_an_unanswered_call_ends_at_its_own_limit(store: Storing, proxy: Proxy) -> None:
    """The fastest of three attempts counts, because a busy machine only makes them slower."""
    proxy.black_hole()
    took = []
    for _ in range(3):
        began = elapsed()
        failure = await store.timeout(Kind.ACQUIRE)
        took.append(elapsed() - began)
        assert not failure.may_execute, "the call was not sent"
    assert TIMINGS.call_limit * 0.9 <= min(took) < TIMINGS.call_limit + 0.4


async def test_a_round_trip_ends_at_the_earliest_limit_of_its_calls(store: Storing, proxy: Proxy) -> None:
    assert await store.outcome(Kind.LOOK) is Outcome.VACANT
    proxy.replies.hold()
    began = elapsed()
    calls = [KeyedCall(KEY, Call(Kind.ACQUIRE, began, began + limit)) for limit in (60.0, 1.0)]
    results = await store.store.execute(calls)
    assert elapsed() - began < 20
    assert all(isinstance(result, Failure) and result.may_execute for result in results)


async def test_an_acquire_after_a_lost_reply_adopts_its_own_term(
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
async def test_a_call_that_arrives_after_its_deadline_has_no_effect(proxy: Proxy, any_redis: Redis, kind: Kind) -> None:
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


async def test_a_server_frozen_past_the_limit_executes_no_call_late(any_redis_of_its_own: RedisServer) -> None:
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


async def test_the_clock_estimate_recovers_after_a_slow_reply(proxy: Proxy) -> None:
    """After a late reply, the estimated server clock is behind the real one; the outcome LATE corrects the estimate."""
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
            break  # otherwise a pause of the machine made one of the calls slower
    assert isinstance(slow, Reply)
    assert isinstance(late, Reply)
    assert isinstance(renewed, Reply)
    assert (late.outcome, renewed.outcome) == (Outcome.LATE, Outcome.RENEWED)


async def test_a_half_open_connection_is_replaced(store: Storing, proxy: Proxy) -> None:
    assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
    proxy.requests.lose()
    await store.timeout(Kind.RENEW)
    proxy.flow()
    assert await store.outcome(Kind.RENEW) is Outcome.RENEWED
    assert proxy.accepted == 2


async def test_the_end_of_an_idle_connection_is_noticed_and_does_not_fail_the_next_call(
    store: Storing, proxy: Proxy
) -> None:
    assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
    reported: list[bool] = []
    store.store.when_ended = lambda: reported.append(store.store.connected)
    await proxy.cut()
    await eventually(lambda: reported)
    assert reported == [False], "the end was reported twice, or while the store still counted as connected"
    assert await store.outcome(Kind.RENEW) is Outcome.RENEWED
    assert proxy.accepted == 2


async def test_the_kill_of_an_idle_connection_is_noticed(
    any_redis: Redis, any_server: RedisServer, store: Storing
) -> None:
    """Only the store reads the socket, so the next call gets its own reply."""
    for _ in range(5):
        assert await store.outcome(Kind.LOOK) is Outcome.VACANT
        command(any_redis, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await eventually(lambda: not store.store.connected)
    assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
    assert await store.outcome(Kind.LOOK) is Outcome.SUPERSEDED


async def test_a_closed_connection_is_noticed_before_a_call_is_written(
    any_redis: Redis, any_server: RedisServer
) -> None:
    """The event loop is busy or paused while the server closes the connection."""
    async with storing(at_port(any_server.port)) as direct:
        for _ in range(5):
            assert await direct.outcome(Kind.LOOK) is Outcome.VACANT
            connection = direct.store._connection
            assert connection is not None and connection._writer is not None
            poll = select.poll()
            poll.register(connection._writer.get_extra_info("socket").fileno(), select.POLLRDHUP)
            command(any_redis, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert poll.poll(30_000), "the server did not close the connection"
            assert direct.store.connected, "the event loop ran"


async def test_closing_the_store_does_not_report_an_ended_connection(store: Storing) -> None:
    assert await store.outcome(Kind.LOOK) is Outcome.VACANT
    connection = store.store._connection
    assert connection is not None
    reported: list[None] = []
    store.store.when_ended = lambda: reported.append(None)
    await store.store.close()
    await eventually(lambda: connection.ended)
    assert reported == []


async def test_a_call_is_retried_at_once_if_the_connection_could_not_be_made(
    store: Storing, proxy: Proxy, any_redis: Redis
) -> None:
    proxy.turn_away = 1
    assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
    assert proxy.accepted == 2
    await store.store.close()
    proxy.turn_away = 2
    failure = await store.failure(Kind.RENEW)
    assert (failure.kind, failure.may_execute) == ("connection", False)
    assert proxy.accepted == 4, "the call was not retried exactly once"


async def test_a_call_that_was_sent_is_not_retried_after_its_connection_ends(
    store: Storing, proxy: Proxy, any_redis: Redis
) -> None:
    assert await store.outcome(Kind.LOOK) is Outcome.VACANT
    before = _scripts_run(any_redis)
    proxy.replies.hold()
    calling = asyncio.create_task(store.failure(Kind.ACQUIRE))
    await eventually(lambda: _scripts_run(any_redis) > before)
    await proxy.cut()
    proxy.flow()
    failure = await calling
    assert (failure.kind, failure.may_execute) == ("connection", True)
    assert (_scripts_run(any_redis), proxy.accepted) == (before + 1, 1)


async def test_a_call_without_a_reply_is_not_retried(store: Storing, proxy: Proxy, any_redis: Redis) -> None:
    assert await store.outcome(Kind.LOOK) is Outcome.VACANT
    before = _scripts_run(any_redis)
    proxy.replies.lose()
    assert (await store.timeout(Kind.ACQUIRE)).may_execute
    await eventually(lambda: _scripts_run(any_redis) > before)
    assert (_scripts_run(any_redis), proxy.accepted) == (before + 1, 1)


REFUSALS = {
    "LOADING Redis is loading the dataset in memory": 2,
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": 2,
    "MOVED 1 127.0.0.1:1": 2,
    "ASK 1 127.0.0.1:1": 2,
    "TRYAGAIN Multiple keys request during rehashing of slot": 2,
    "CLUSTERDOWN The cluster is down": 2,
    "READONLY You can't write against a read only replica.": 2,
    "READONLY You can't write against a read only replica. script: 5bf2, on @user_script:12.": 1,
    "MASTERDOWN Link with MASTER is down. script: 5bf2, on @user_script:12.": 1,
    "ERR Error running script (call to f_5bf2): @user_script:12: -LOADING Redis is loading": 1,
    "OOM command not allowed when used memory > 'maxmemory'.": 1,
    "NOPERM this user has no permissions to run the 'eval' command": 1,
    "NOAUTH Authentication required.": 1,
    "BUSY Redis is busy running a script.": 1,
}
"""Error replies to an EVAL, each with the number of times that the store sends the call."""


class Refusing:
    """A server that answers every EVAL with one error, and other commands with success; `evals` has the EVALs."""

    def __init__(self, error: str) -> None:
        self.error = error
        self.evals: list[list[bytes]] = []
        self.time = 1000
        self.open = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                count = int((await reader.readuntil(b"\r\n"))[1:])
                words = []
                for _ in range(count):
                    length = int((await reader.readuntil(b"\r\n"))[1:])
                    words.append((await reader.readexactly(length + 2))[:-2])
                if words[0] == b"EVAL":
                    self.evals.append(words)
                    writer.write(f"-{self.error}\r\n".encode())
                elif words[0] == b"TIME":
                    self.time += 1000  # each connection finds another clock
                    writer.write(f"*2\r\n:{self.time}\r\n:0\r\n".encode())
                else:
                    writer.write(b"+\r\n")
        writer.transport.abort()
        self.open -= 1


@pytest.mark.parametrize("error", REFUSALS)
async def test_a_call_is_retried_only_if_the_reply_refuses_the_eval_itself(error: str) -> None:
    refusing = Refusing(error)
    server = await asyncio.start_server(refusing.answer, "127.0.0.1", 0)
    async with storing(at_port(server.sockets[0].getsockname()[1])) as store:
        now = elapsed()
        calls = [KeyedCall(key, Call(Kind.ACQUIRE, now, now + 10, None, f"boot-{key}")) for key in ("one", "two")]
        results = await store.store.execute(calls)
    server.close()
    await eventually(lambda: refusing.open == 0)
    assert [isinstance(result, Failure) and not result.may_execute for result in results] == [True, True]
    times = REFUSALS[error]
    assert len(refusing.evals) == 2 * times
    for number, key in enumerate((b"one", b"two")):
        made = refusing.evals[number::2]
        assert {(words[3], words[10]) for words in made} == {(key, b"boot-" + key)}, "the retry has another tenure"
        if times == 2:
            first, second = (int(words[7]) for words in made)
            assert 999_000_000 < second - first < 1_001_000_000, "the deadline is not in the new server's time"


async def test_after_a_failover_a_refused_call_is_retried_at_the_new_server_at_once(
    tmp_path: Path, redis_of_its_own: RedisServer
) -> None:
    with RedisServer(tmp_path / "old") as old, client_of(old) as redis:
        async with Proxy(old.port) as proxy, storing(at_port(proxy.port)) as store:
            assert await store.outcome(Kind.LOOK) is Outcome.VACANT
            redis.config_set("replica-serve-stale-data", "no")
            command(redis, "REPLICAOF", "127.0.0.1", "1")
            proxy.target = redis_of_its_own.port
            assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED


async def test_a_refused_connection_leaves_no_call_that_may_still_execute(store: Storing, proxy: Proxy) -> None:
    await proxy.refuse()
    failure = await store.failure(Kind.ACQUIRE)
    assert (failure.kind, failure.may_execute) == ("connection", False)
    await proxy.accept()
    assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED


async def test_after_a_dns_failover_calls_go_to_the_new_server(
    store: Storing, proxy: Proxy, redis_of_its_own: RedisServer
) -> None:
    assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
    proxy.target = redis_of_its_own.port
    await proxy.cut()
    await eventually(lambda: not store.store.connected)
    assert await store.outcome(Kind.RENEW) is Outcome.VACANT


async def test_an_unsafe_eviction_policy_is_detected(any_redis: Redis, store: Storing) -> None:
    await store.outcome(Kind.LOOK)
    assert store.store.eviction_policy == "noeviction"
    any_redis.config_set("maxmemory-policy", "volatile-lru")
    try:
        await store.store.close()
        await store.outcome(Kind.LOOK)
        assert store.store.eviction_policy == "volatile-lru"
    finally:
        any_redis.config_set("maxmemory-policy", "noeviction")


async def test_calls_also_read_the_eviction_policy_once_the_last_value_is_old(any_redis: Redis, store: Storing) -> None:
    await store.outcome(Kind.LOOK)
    asked = any_redis.info("commandstats")["cmdstat_info"]["calls"]
    any_redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        await store.outcome(Kind.LOOK)
        assert store.store.eviction_policy == "noeviction", "the call read the policy"
        assert any_redis.info("commandstats")["cmdstat_info"]["calls"] == asked + 1, "the store called INFO too"
        store.store._policy_at -= 10
        await store.outcome(Kind.LOOK)
        assert store.store.eviction_policy == "allkeys-lru"
    finally:
        any_redis.config_set("maxmemory-policy", "noeviction")
    store.store._policy_at -= 10
    assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
    assert store.store.eviction_policy == "noeviction"


async def test_a_call_to_a_port_without_a_listener_fails_at_once() -> None:
    async with storing(at_port(free_port())) as store:
        assert (await store.failure(Kind.ACQUIRE)).kind == "connection", "the call must not wait until its limit"


def _scripts_run(redis: Redis) -> int:
    stats = redis.info("commandstats").get("cmdstat_eval", {})
    return int(stats.get("calls", 0))
