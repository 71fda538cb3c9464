"""The fallbacks of the sidecar on a server without INFO and without client tracking.

The server is the TCP server of fakeredis. It ends a connection after each error.
"""

import asyncio
from collections.abc import Iterator
from threading import Thread

import pytest
from fakeredis import FakeRedis, TcpFakeServer

from sidecar.protocol import Kind, Outcome
from sidecar.redis.connection import Connector
from sidecar.redis.server_facts import ServerFacts
from sidecar.redis.store import fence_of
from sidecar.redis.watch import WatchMode
from tests.sidecar.redis.test_watch import watching
from tests.support.script_caller import Caller
from tests.support.storing import KEY, at_port, storing
from tests.support.waiting import eventually


@pytest.fixture(
    params=[((6, 2), "redis"), ((7, 0), "redis"), ((8,), "redis"), ((8,), "valkey")],
    ids=["Redis 6.2", "Redis 7.0", "Redis 8", "Valkey 8"],
)
def fake_server(request: pytest.FixtureRequest) -> Iterator[TcpFakeServer]:
    version, kind = request.param
    with TcpFakeServer(("127.0.0.1", 0), server_type=kind, server_version=version) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture
def connect(fake_server: TcpFakeServer) -> Connector:
    return at_port(fake_server.server_address[1])


@pytest.fixture
def fake_redis(fake_server: TcpFakeServer) -> FakeRedis:
    return FakeRedis(server=fake_server.fake_server, decode_responses=True)


async def test_a_whole_term_works_without_a_guard(connect: Connector, fake_redis: FakeRedis) -> None:
    async with storing(connect, guard=True) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        assert store.store.guard == "unavailable"
        assert fake_redis.get(KEY) == "a"
        assert 0 < fake_redis.pttl(KEY) <= 6000
        assert fake_redis.hget(fence_of(KEY), "token") == str(store.token)
        assert await store.outcome(Kind.RENEW) is Outcome.RENEWED
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ADOPTED
        assert await store.outcome(Kind.RELEASE) is Outcome.RELEASED
        assert await store.outcome(Kind.RENEW) is Outcome.VACANT
        fake_redis.set(KEY, "disabled", ex=60)
        assert await store.outcome(Kind.ACQUIRE) is Outcome.DISABLED


async def test_the_scripts_give_the_same_replies(fake_redis: FakeRedis) -> None:
    first = Caller(fake_redis).acquire()
    assert first.outcome == "acquired"
    assert int(first.token) == first.time
    assert Caller(fake_redis, "b").acquire().outcome == "held"
    assert Caller(fake_redis).renew(first.token, deadline=first.time - 1).outcome == "late"
    assert Caller(fake_redis).release("1").outcome == "superseded"
    assert Caller(fake_redis).release(first.token).outcome == "released"
    fake_redis.lpush(KEY, "x")
    assert Caller(fake_redis).acquire().outcome == "wrong_type"


async def test_the_watch_falls_back_to_release_notices(connect: Connector, fake_redis: FakeRedis) -> None:
    async with watching(connect) as watch:
        await watch.connected(WatchMode.NOTICES)
        assert watch.watch.refusal
        Caller(fake_redis).release(Caller(fake_redis).acquire().token)
        await watch.reports("tracker")


async def test_a_refused_command_is_sent_once_by_all_connections_together(
    connect: Connector, fake_redis: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sidecar.redis")
    async with storing(connect, guard=True) as store, watching(connect.companion) as watch:
        assert await store.store.open() is None
        await watch.connected(WatchMode.NOTICES)
        assert "client tracking" in str(watch.watch.refusal)
        await store.store.close()
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        assert await store.outcome(Kind.RELEASE) is Outcome.RELEASED
        await watch.reports("tracker")
    said = [record.getMessage() for record in caplog.records if record.name == "sidecar.redis.optional"]
    assert [text.partition(":")[0] for text in said] == [
        "Redis refuses the command INFO", "Redis refuses the command CLIENT TRACKING"
    ]  # fmt: skip


async def test_the_facts_of_the_server_are_read_without_the_refused_command(connect: Connector) -> None:
    async with storing(connect, guard=True) as store:
        assert await store.store.open() is None
        learned: list[None] = []
        facts = ServerFacts(
            connect.companion, store.store, lambda: learned.append(None), channel=f"{KEY}:changed", limit=5.0,
            look=0.02, old=0.0,
        )  # fmt: skip
        running = asyncio.create_task(facts.run())
        await eventually(lambda: learned)
        running.cancel()
        await asyncio.wait((running,))
        assert (store.store.guard, store.store.eviction_policy) == ("unavailable", None)
        assert store.store.connected
