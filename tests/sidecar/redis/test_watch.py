"""The watch on real servers: what it reports in each mode, and that it recovers from every failure."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from sidecar.protocol import Kind, Outcome
from sidecar.redis.connection import RedisConnection
from sidecar.redis.store import fence_of
from sidecar.redis.watch import RedisWatch, WatchMode
from tests.sidecar.conftest import client_of, command
from tests.support.operator import step_down
from tests.support.proxy import Proxy
from tests.support.script_caller import Caller
from tests.support.storing import at_port, storing
from tests.support.subscribers import subscribed
from tests.support.waiting import eventually

KEYS = {"tracker": "portfolio:background_services:leader", "scheduler": "portfolio:daily_scheduler:leader"}
KEY = KEYS["tracker"]
REFUSED = [["-client", "+client|id"], ["-client"]]
"""Rights of users to whom the server refuses CLIENT TRACKING, or every CLIENT command, like some managed servers."""


INTERVAL = 0.3
"""Seconds between two renewals of the lease."""
LIMIT = 5.0
"""Seconds that the server may take to answer: a shorter pause of the machine ends no connection."""
RETRY = 0.5
"""Seconds until a refused command is tried again."""


class Watching:
    """A watch and the changes that it has reported."""

    def __init__(self, connect: Callable[[], RedisConnection], limit: float, retry: float) -> None:
        self.changes: list[str] = []
        self.step_downs: list[str] = []
        self.relays: list[str] = []
        self.watch = RedisWatch(
            connect,
            KEYS,
            self.changes.append,
            self.step_downs.append,
            relay=self.relays.append,
            limit=limit,
            interval=INTERVAL,
            uniform=lambda *_: 1.0,
            retry=retry,
        )

    async def reports(self, *names: str) -> None:
        """Wait until the watch has reported these leases, and no other lease."""
        await eventually(lambda: set(self.changes) >= set(names))
        assert set(self.changes) == set(names)
        self.changes.clear()

    async def connected(self, mode: WatchMode) -> None:
        await eventually(lambda: self.watch.mode is mode)
        await self.reports(*KEYS)


@asynccontextmanager
async def watching(
    connect: Callable[[], RedisConnection], limit: float = LIMIT, retry: float = RETRY
) -> AsyncIterator[Watching]:
    it = Watching(connect, limit, retry)
    running = asyncio.create_task(it.watch.run())
    try:
        yield it
    finally:
        assert not running.done(), "the watch ended"
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert it.watch.mode is WatchMode.OFF


@asynccontextmanager
async def restricted(redis: Redis, server: RedisServer, *rights: str) -> AsyncIterator[Watching]:
    """A watch of a user with all rights except those that `rights` change."""
    command(redis, "ACL", "SETUSER", "sidecar", "on", ">x", "~*", "&*", "+@all", *rights)
    try:
        async with watching(at_port(server.port, username="sidecar", password="x")) as watch:
            yield watch
    finally:
        command(redis, "ACL", "DELUSER", "sidecar")


async def test_with_tracking_the_watch_reports_every_change_of_a_key(any_redis: Redis, any_server: RedisServer) -> None:
    async with watching(at_port(any_server.port)) as watch:
        await watch.connected(WatchMode.TRACKING)
        assert watch.watch.refusal is None
        any_redis.set(KEY, "b", ex=30)
        await watch.reports("tracker")
        any_redis.set(KEY, "DISABLED", ex=20)
        await watch.reports("tracker")
        any_redis.delete(KEY)
        await watch.reports("tracker")
        any_redis.set(KEYS["scheduler"], "b", px=200)
        await eventually(lambda: watch.changes == ["scheduler", "scheduler"])  # the second change is the expiry
        watch.changes.clear()
        any_redis.lpush(KEY, "of another type")
        await watch.reports("tracker")
        any_redis.flushall()
        await watch.reports(*KEYS)


async def test_the_watch_reports_no_key_that_is_not_a_lease(any_redis: Redis, any_server: RedisServer) -> None:
    async with watching(at_port(any_server.port)) as watch:
        await watch.connected(WatchMode.TRACKING)
        any_redis.set(f"{KEY}:else", "x")
        any_redis.hset(fence_of(KEY), "token", "1")
        any_redis.set("unrelated", "x")
        any_redis.set(KEYS["scheduler"], "b")
        await watch.reports("scheduler")


@pytest.mark.parametrize("rights", REFUSED)
async def test_without_tracking_the_watch_reports_releases(
    any_redis: Redis, any_server: RedisServer, rights: list[str]
) -> None:
    async with restricted(any_redis, any_server, *rights) as watch:
        await watch.connected(WatchMode.NOTICES)
        assert "permission" in str(watch.watch.refusal)
        any_redis.set(KEYS["scheduler"], "b")
        any_redis.delete(KEYS["scheduler"])
        Caller(any_redis).release(Caller(any_redis).acquire().token)
        await watch.reports("tracker")


async def test_after_its_connection_was_killed_the_watch_reports_every_lease_and_continues(
    any_redis: Redis, any_server: RedisServer
) -> None:
    async with watching(at_port(any_server.port)) as watch:
        await watch.connected(WatchMode.TRACKING)
        command(any_redis, "CLIENT", "KILL", "TYPE", "pubsub")
        await watch.connected(WatchMode.TRACKING)
        any_redis.set(KEY, "b")
        await watch.reports("tracker")


async def test_a_lost_connection_of_the_watch_is_replaced_long_before_the_limit(
    any_redis: Redis, any_server: RedisServer
) -> None:
    """A pause derived from the limit would be half a minute here."""
    async with watching(at_port(any_server.port), limit=60.0) as watch:
        await watch.connected(WatchMode.TRACKING)
        command(any_redis, "CLIENT", "KILL", "TYPE", "pubsub")
        await watch.reports(*KEYS)
        assert watch.watch.mode is WatchMode.TRACKING


async def test_the_watch_is_off_while_the_server_is_down_and_recovers_with_the_server(
    redis_of_its_own: RedisServer,
) -> None:
    async with watching(at_port(redis_of_its_own.port)) as watch:
        await watch.connected(WatchMode.TRACKING)
        redis_of_its_own.kill()
        await eventually(lambda: watch.watch.mode is WatchMode.OFF)
        await redis_of_its_own.start_beside()
        await watch.connected(WatchMode.TRACKING)
        with client_of(redis_of_its_own) as redis:
            redis.set(KEY, "b")
        await watch.reports("tracker")


async def test_the_watch_closes_a_connection_that_answers_no_ping(any_redis: Redis, any_server: RedisServer) -> None:
    async with Proxy(any_server.port) as proxy, watching(at_port(proxy.port)) as watch:
        await watch.connected(WatchMode.TRACKING)
        proxy.black_hole()
        await eventually(lambda: watch.watch.mode is WatchMode.OFF)
        proxy.flow()
        await watch.connected(WatchMode.TRACKING)
        any_redis.delete(KEY)
        any_redis.set(KEY, "b")
        await watch.reports("tracker")


async def test_the_watch_keeps_an_idle_connection(any_redis: Redis, any_server: RedisServer) -> None:
    """After several requests for a sign of life the connection is still the same."""
    async with Proxy(any_server.port) as proxy, watching(at_port(proxy.port)) as watch:
        await watch.connected(WatchMode.TRACKING)
        before = _subscribes(any_redis)
        await eventually(lambda: _subscribes(any_redis) >= before + 3)
        any_redis.set(KEY, "b")
        await watch.reports("tracker")
        assert proxy.accepted == 1


async def test_the_notice_of_a_renewal_comes_before_the_watch_requests_a_sign_of_life(
    any_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader renews once in each interval, so the watch waits longer than an interval for a message."""
    limits: list[float | None] = []
    timeout = asyncio.timeout

    def recorded(limit: float | None) -> asyncio.Timeout:
        limits.append(limit)
        return timeout(limit)

    monkeypatch.setattr(asyncio, "timeout", recorded)
    async with watching(at_port(any_server.port)) as watch:
        await watch.connected(WatchMode.TRACKING)
        await eventually(lambda: any(limit is not None and limit < LIMIT for limit in limits))
    assert min(limit for limit in limits if limit is not None) > INTERVAL


def _subscribes(redis: Redis) -> int:
    return int(redis.info("commandstats").get("cmdstat_subscribe", {}).get("calls", 0))


@pytest.mark.parametrize("moves", ["the watch", "the election"])
async def test_a_watch_at_another_server_than_the_election_is_off_and_is_reported(
    redis: Redis, redis_server: RedisServer, redis_of_its_own: RedisServer, moves: str
) -> None:
    """A load balancer sends the watch and the calls to different servers, and later to the same server again."""
    async with Proxy(redis_server.port) as balancer:
        connector = at_port(balancer.port)
        async with storing(connector) as store:
            assert await store.outcome(Kind.LOOK) is Outcome.VACANT
            if moves == "the watch":
                balancer.target = redis_of_its_own.port
            async with watching(connector.companion) as watch:
                if moves == "the election":
                    await watch.connected(WatchMode.TRACKING)
                    balancer.target = redis_of_its_own.port
                    await store.store.close()
                    assert await store.outcome(Kind.LOOK) is Outcome.VACANT
                    balancer.target = redis_server.port
                await eventually(lambda: watch.watch.mode is WatchMode.OFF and watch.watch.refusal)
                assert "several servers" in str(watch.watch.refusal)
                balancer.target = redis_of_its_own.port if moves == "the election" else redis_server.port
                await eventually(lambda: watch.watch.mode is WatchMode.TRACKING)


async def test_after_a_restart_of_the_server_the_watch_may_be_connected_before_the_election(
    redis_of_its_own: RedisServer,
) -> None:
    """The restarted server has another run id than the server of the election's old connection."""
    connector = at_port(redis_of_its_own.port)
    async with storing(connector) as store, watching(connector.companion, retry=3600.0) as watch:
        assert await store.outcome(Kind.LOOK) is Outcome.VACANT
        await watch.connected(WatchMode.TRACKING)
        redis_of_its_own.kill()
        await eventually(lambda: watch.watch.mode is WatchMode.OFF)
        await redis_of_its_own.start_beside()
        await eventually(lambda: watch.watch.mode is WatchMode.TRACKING or watch.watch.refusal)
        assert (watch.watch.mode, watch.watch.refusal) == (WatchMode.TRACKING, None)
        watch.changes.clear()
        assert await store.outcome(Kind.LOOK) is Outcome.VACANT
        with client_of(redis_of_its_own) as redis:
            redis.set(KEY, "b")
        await watch.reports("tracker")  # a new connection of the watch would report every lease


async def test_a_watch_at_another_server_recovers_as_soon_as_the_election_is_at_that_server(
    redis: Redis, redis_server: RedisServer, redis_of_its_own: RedisServer
) -> None:
    """In a failover the watch may reach the new primary first."""
    async with Proxy(redis_server.port) as balancer:
        connector = at_port(balancer.port)
        async with storing(connector) as store:
            assert await store.outcome(Kind.LOOK) is Outcome.VACANT
            balancer.target = redis_of_its_own.port
            async with watching(connector.companion, retry=3600.0) as watch:
                await eventually(lambda: watch.watch.refusal)
                await store.store.close()
                assert await store.outcome(Kind.LOOK) is Outcome.VACANT
                await eventually(lambda: watch.watch.mode is WatchMode.TRACKING)


@pytest.mark.parametrize("rights", [["+client"], *REFUSED])
async def test_a_step_down_is_not_reported_as_a_change_of_the_key(
    any_redis: Redis, any_server: RedisServer, rights: list[str]
) -> None:
    """A follower has no reason to wake: the key has not changed."""
    async with restricted(any_redis, any_server, *rights) as watch:
        await watch.connected(WatchMode.TRACKING if rights == ["+client"] else WatchMode.NOTICES)
        step_down(any_redis, KEY, token="1")
        await eventually(lambda: watch.step_downs == ["tracker"])
        any_redis.publish(f"{KEYS['scheduler']}:changed", "released")
        await watch.reports("scheduler")
        assert watch.step_downs == ["tracker"]


async def test_a_relayed_watch_reports_a_vacant_lease_and_no_other_change(
    any_redis: Redis, any_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with watching(at_port(any_server.port)) as watch:
        await watch.connected(WatchMode.TRACKING)
        for name in KEYS:
            watch.watch.choose(name, False)
        await watch.connected(WatchMode.RELAYED)
        assert watch.watch.refusal is None
        any_redis.set(KEY, "b")
        step_down(any_redis, KEY, token="1")
        any_redis.delete(KEY)
        assert Caller(any_redis).relay().outcome == "vacant"
        await watch.reports("tracker")
        assert watch.step_downs == []
        watch.watch.choose("tracker", True)
        await watch.connected(WatchMode.TRACKING)
        any_redis.set(KEYS["scheduler"], "b")
        any_redis.set(KEY, "b")
        await watch.reports("tracker")
        assert any_redis.pubsub_numsub(f"{KEY}:direct:changed", f"{KEY}:vacant:changed") == [
            (f"{KEY}:direct:changed", 1),
            (f"{KEY}:vacant:changed", 0),
        ]
        assert caplog.records == [], "a large fleet is no reason for a log line"


async def test_a_choice_that_changes_nothing_keeps_the_connection(any_redis: Redis, any_server: RedisServer) -> None:
    async with Proxy(any_server.port) as proxy, watching(at_port(proxy.port)) as watch:
        await watch.connected(WatchMode.TRACKING)
        watch.watch.choose("tracker", True)
        any_redis.set(KEY, "b")
        await watch.reports("tracker")
        assert proxy.accepted == 1


async def test_a_choice_during_the_connecting_takes_effect(any_redis: Redis, any_server: RedisServer) -> None:
    async with Proxy(any_server.port) as proxy:
        proxy.black_hole()
        async with watching(at_port(proxy.port)) as watch:
            await eventually(lambda: proxy.accepted == 1)
            for name in KEYS:
                watch.watch.choose(name, False)
            proxy.flow()
            await watch.connected(WatchMode.RELAYED)


async def test_a_choice_while_there_is_no_connection_does_not_shorten_the_pauses(redis_of_its_own: RedisServer) -> None:
    attempts = 0

    def connect() -> RedisConnection:
        nonlocal attempts
        attempts += 1
        return at_port(redis_of_its_own.port)()

    async with watching(connect, limit=60.0) as watch:
        await watch.connected(WatchMode.TRACKING)
        redis_of_its_own.kill()
        watch.watch.choose("tracker", False)
        await eventually(lambda: attempts >= 3)
        assert watch.watch.mode is WatchMode.OFF
        assert attempts < 10, "a watch without a pause makes hundreds of attempts in this time"


async def test_a_refused_relayed_channel_costs_one_more_connection_and_is_logged_once(
    any_redis: Redis, any_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The channel that counts the direct watches is allowed; the channel of the relayed watches is refused."""
    caplog.set_level("INFO")
    channels = [f"&{key}{end}" for key in KEYS.values() for end in (":changed", ":direct:changed")]
    rights = ["resetchannels", "&__redis__:invalidate", *channels]
    async with restricted(any_redis, any_server, *rights) as watch:
        await watch.connected(WatchMode.TRACKING)
        watch.watch.choose("tracker", False)
        await watch.connected(WatchMode.TRACKING)
        watch.watch.choose("tracker", False)
        any_redis.set(KEY, "b")
        await watch.reports("tracker")
    said = [record.getMessage() for record in caplog.records if record.name == "sidecar.redis.watch"]
    assert said == [
        f"Redis refuses the channel {KEY}:vacant:changed, so this task keeps a direct watch until it is restarted"
    ]


@pytest.mark.parametrize("rights", [["+client"], *REFUSED])
async def test_a_release_in_a_large_fleet_asks_the_direct_watches_to_relay_it(
    any_redis: Redis, any_server: RedisServer, rights: list[str]
) -> None:
    async with restricted(any_redis, any_server, *rights) as watch:
        await watch.connected(WatchMode.TRACKING if rights == ["+client"] else WatchMode.NOTICES)
        with subscribed(any_redis, KEY, 8, 25):
            Caller(any_redis).release(Caller(any_redis).acquire().token)
            await eventually(lambda: watch.relays == ["tracker"])


async def test_a_user_without_the_right_to_the_channel_of_relayed_watches_keeps_direct_watches(
    any_redis: Redis, any_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The user has the rights that an earlier version needed, with the exact names of the channels."""
    caplog.set_level("INFO")
    channels = [f"&{key}:changed" for key in KEYS.values()]
    rights = ["resetchannels", "&__redis__:invalidate", *channels]
    async with restricted(any_redis, any_server, *rights) as watch:
        await watch.connected(WatchMode.TRACKING)
        watch.watch.choose("tracker", False)
        assert watch.watch.refusal is None
        any_redis.set(KEY, "b")
        await watch.reports("tracker")
    said = [record.getMessage() for record in caplog.records if record.name == "sidecar.redis.watch"]
    assert said == [
        f"Redis refuses the channel {KEY}:direct:changed, so this task keeps a direct watch until it is restarted"
    ]
