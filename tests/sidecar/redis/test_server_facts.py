"""A sidecar that makes no calls reports the current facts of its server."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import cast
from unittest.mock import Mock

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from runtime.clock import elapsed
from sidecar.protocol import Kind, Outcome, Timings
from sidecar.redis.connection import Connector, RedisConnection
from sidecar.redis.server_facts import LOOK, OLD, ServerFacts
from sidecar.redis.store import RedisStore
from sidecar.settings import RedisAddress
from tests.sidecar.conftest import command
from tests.sidecar.redis.test_malformed import Hostile
from tests.support.proxy import Proxy
from tests.support.storing import KEY, TIMINGS, at_port, storing
from tests.support.waiting import eventually

CHANNEL = f"{KEY}:changed"
SELDOM = Timings(ttl=600.0, heartbeat=200.0, grant_ttl=5.0, call_limit=0.5)
"""Timings with such a long heartbeat that no test waits for it."""


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
    """An idle sidecar does not wake up while it has nothing to ask."""

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


@pytest.mark.parametrize("username", [None, "sidecar"])
async def test_a_frozen_server_is_not_shown_as_up(
    redis: Redis, redis_server: RedisServer, username: str | None
) -> None:
    """While no call is made, only the request for the facts can find the server frozen, with or without a login."""
    command(redis, "ACL", "SETUSER", "sidecar", "on", ">x", "~*", "&*", "+@all")
    try:
        async with Proxy(redis_server.port) as way, shown(way.port, username, limit=0.5) as (store, learned):
            await eventually(lambda: learned)
            ended: list[None] = []
            store.when_ended = lambda: ended.append(None)
            way.black_hole()
            await eventually(lambda: not store.connected)
            assert ended  # in a sidecar, the election receives this event and reconnects
    finally:
        command(redis, "ACL", "DELUSER", "sidecar")


@pytest.mark.parametrize("calls", [True, False])
async def test_a_hanging_new_connection_does_not_end_the_connection_of_the_election(
    redis: Redis, redis_server: RedisServer, calls: bool
) -> None:
    """A proxy or a firewall may hold up new connections while the open ones work.

    If `calls` is true, the election makes calls, and the new connection gets no answer. Otherwise no connection can be
    made.
    """
    with ExitStack() as sockets:
        silent = sockets.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        silent.listen(8 if calls else 0)
        for _ in range(0 if calls else 4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        attempts: list[RedisConnection] = []

        def connect() -> RedisConnection:
            attempts.append(at_port(silent.getsockname()[1])())
            return attempts[-1]

        async with storing(at_port(redis_server.port), timings=SELDOM) as caller:
            assert await caller.store.open() is None
            if calls:
                assert await caller.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
            facts = ServerFacts(connect, caller.store, Mock(), channel=CHANNEL, limit=0.1, look=0.02, old=0.0)
            running = asyncio.create_task(facts.run())
            await eventually(lambda: len(attempts) > 2)
            running.cancel()
            await asyncio.wait((running,))
            assert {attempt.reached for attempt in attempts[:2]} == {calls}
            assert caller.store.connected


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
