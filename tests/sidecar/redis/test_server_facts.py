"""A sidecar that makes no calls reports the current facts of its server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast
from unittest.mock import Mock

from redis import Redis

from ops.local.servers import RedisServer
from runtime.clock import elapsed
from sidecar.redis.connection import Connector
from sidecar.redis.server_facts import LOOK, OLD, ServerFacts
from sidecar.redis.store import RedisStore
from sidecar.settings import RedisAddress
from tests.sidecar.conftest import command
from tests.sidecar.redis.test_malformed import Hostile
from tests.support.proxy import Proxy
from tests.support.storing import KEY, TIMINGS, at_port, storing
from tests.support.waiting import eventually

CHANNEL = f"{KEY}:changed"


@asynccontextmanager
async def shown(
    port: int, username: str | None = None, limit: float = 5.0
) -> AsyncIterator[tuple[RedisStore, list[None]]]:
    """A connected store that makes no calls, and a list with one entry for each reading of the facts."""
    connector = Connector(RedisAddress("", None, "127.0.0.1", port, username, "x" if username else None))
    store = RedisStore(connector, "a", TIMINGS, clock=elapsed, failover_guard=True, min_replicas=0)
    learned: list[None] = []
    facts = ServerFacts(
        connector.companion, store, lambda: learned.append(None), channel=CHANNEL, limit=limit, look=0.02, old=0.0
    )
    running = asyncio.create_task(facts.run())
    try:
        assert await store.open() is None
        yield store, learned
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await store.close()


def test_a_server_fact_is_at_most_30_seconds_old() -> None:
    assert OLD + LOOK + min(TIMINGS.call_limit, LOOK) <= 30


async def test_while_the_facts_are_recent_the_task_sleeps() -> None:
    """An idle sidecar does not wake up to find that it has nothing to ask."""

    class Recent:
        checks = 0

        @property
        def facts_age(self) -> float:
            self.checks += 1
            return 1.0

    recent = Recent()
    facts = ServerFacts(Mock(), cast("RedisStore", recent), Mock(), channel=CHANNEL, limit=1.0, look=0.0, old=3600.0)
    running = asyncio.create_task(facts.run())
    for _ in range(100):
        await asyncio.sleep(0)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert recent.checks == 1


async def test_without_calls_the_status_follows_changes_of_the_server(
    any_redis: Redis, any_server: RedisServer
) -> None:
    command(any_redis, "ACL", "SETUSER", "sidecar", "on", ">x", "~*", "&*", "+@all")
    try:
        async with shown(any_server.port, "sidecar") as (store, learned):
            await eventually(lambda: (store.eviction_policy, store.guard) == ("noeviction", "on"))
            any_redis.config_set("maxmemory-policy", "volatile-lru")
            await eventually(lambda: store.eviction_policy == "volatile-lru")
            any_redis.config_set("maxmemory-policy", "noeviction")
            await eventually(lambda: store.eviction_policy == "noeviction")
            command(any_redis, "ACL", "SETUSER", "sidecar", "-info")
            await eventually(lambda: (store.eviction_policy, store.guard) == (None, "unavailable"))
            command(any_redis, "ACL", "SETUSER", "sidecar", "+info")
            await eventually(lambda: (store.eviction_policy, store.guard) == ("noeviction", "on"))
            assert learned
    finally:
        any_redis.config_set("maxmemory-policy", "noeviction")
        command(any_redis, "ACL", "DELUSER", "sidecar")


async def test_a_killed_server_is_shown_as_not_connected(redis_of_its_own: RedisServer) -> None:
    async with shown(redis_of_its_own.port) as (store, learned):
        await eventually(lambda: learned)
        redis_of_its_own.kill()
        await eventually(lambda: not store.connected)


async def test_a_refused_notice_is_published_again_until_it_is_accepted(
    any_redis: Redis, any_server: RedisServer
) -> None:
    """The next release, which would show that the right was granted, may be days away."""
    command(any_redis, "ACL", "SETUSER", "sidecar", "on", ">x", "~*", "&*", "+@all", "-publish")
    try:
        async with shown(any_server.port, "sidecar") as (store, learned):
            store.release_notice = "refused"
            await eventually(lambda: len(learned) > 2)
            assert store.release_notice == "refused"
            command(any_redis, "ACL", "SETUSER", "sidecar", "+publish")
            await eventually(lambda: store.release_notice == "sent")
    finally:
        command(any_redis, "ACL", "DELUSER", "sidecar")


async def test_a_frozen_server_is_not_shown_as_up(redis_server: RedisServer) -> None:
    """While no call is made, only the request for the facts checks the connection."""
    async with Proxy(redis_server.port) as way, shown(way.port, limit=0.5) as (store, learned):
        await eventually(lambda: learned)
        ended: list[None] = []
        store.when_ended = lambda: ended.append(None)
        way.black_hole()
        await eventually(lambda: not store.connected)
        assert ended  # in a sidecar, the election receives this event and reconnects


async def test_malformed_facts_are_ignored(redis_server: RedisServer) -> None:
    learned: list[None] = []
    async with Hostile(b"$abc\r\n").listening() as server, storing(at_port(redis_server.port)) as caller:
        facts = ServerFacts(
            at_port(server.port), caller.store, lambda: learned.append(None), channel=CHANNEL, limit=5.0, look=0.02,
            old=0.0,
        )  # fmt: skip
        assert await caller.store.open() is None
        running = asyncio.create_task(facts.run())
        await eventually(lambda: server.answered["calls"] > 2)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert (caller.store.connected, learned) == (True, [])
