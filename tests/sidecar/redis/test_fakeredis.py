"""The fallbacks of the sidecar on a server without INFO in scripts and without client tracking."""

from collections.abc import Callable, Iterable
from typing import cast

import pytest
from fakeredis import FakeAsyncRedisConnection, FakeRedis, FakeServer

from sidecar.protocol import Kind, Outcome
from sidecar.redis.connection import RedisConnection
from sidecar.redis.store import fence_of
from sidecar.redis.watch import WatchMode
from tests.sidecar.redis.test_watch import watching
from tests.support.script_caller import Caller
from tests.support.storing import KEY, storing


class Fake(FakeAsyncRedisConnection):
    """A fake connection with the methods of the sidecar's own connections; its stream never ends."""

    ended = False
    redirects = False
    writable = True
    assured = True
    when_ended: Callable[[], None]

    def identify(self, _: object) -> bool:
        """Return true: there is only one server."""
        return True

    async def assure(self) -> None:
        """Do nothing: there is only one server."""

    def write(self, commands: Iterable[tuple[bytes | str | int, ...]]) -> None:
        """Write commands in one piece."""
        assert self._writer is not None
        self._writer.writelines(self.pack_commands(commands))

    def distrust(self) -> None:
        """Do nothing: there is only one server."""

    def lifetime(self) -> None:
        """Return None, which means no limit: the server never closes the connection."""


@pytest.fixture(
    params=[((6, 2), "redis"), ((7, 0), "redis"), ((8,), "redis"), ((8,), "valkey")],
    ids=["Redis 6.2", "Redis 7.0", "Redis 8", "Valkey 8"],
)
def fake_server(request: pytest.FixtureRequest) -> FakeServer:
    version, kind = request.param
    return FakeServer(version=version, server_type=kind)


@pytest.fixture
def connect(fake_server: FakeServer) -> Callable[[], RedisConnection]:
    return lambda: cast("RedisConnection", Fake(server=fake_server, decode_responses=True, protocol=2))


@pytest.fixture
def fake_redis(fake_server: FakeServer) -> FakeRedis:
    return FakeRedis(server=fake_server, decode_responses=True)


async def test_a_whole_term_works_without_a_guard(
    connect: Callable[[], RedisConnection], fake_redis: FakeRedis
) -> None:
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


async def test_the_watch_falls_back_to_release_notices(
    connect: Callable[[], RedisConnection], fake_redis: FakeRedis
) -> None:
    async with watching(connect) as watch:
        await watch.connected(WatchMode.NOTICES)
        assert watch.watch.refusal
        Caller(fake_redis).release(Caller(fake_redis).acquire().token)
        await watch.reports("tracker")
