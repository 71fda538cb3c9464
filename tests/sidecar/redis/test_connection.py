"""Connections to a host name with several addresses, which may be several servers, and over a Unix socket."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from runtime.lookup import AddressInfo, Lookups
from sidecar.protocol import Kind, Outcome
from sidecar.redis.connection import Connector, RedisConnection
from sidecar.redis.watch import WatchMode
from sidecar.settings import RedisAddress, read
from tests.sidecar.conftest import command
from tests.sidecar.redis.test_watch import KEYS, watching
from tests.support.proxy import Proxy
from tests.support.storing import storing
from tests.support.waiting import eventually

HOST = "redis.example"


class Name:
    """A name with addresses that the test sets; `lookups` counts the lookups."""

    def __init__(self, *ports: int) -> None:
        self.ports = ports
        self.lookups = 0

    def __call__(self, host: str, port: int) -> Sequence[AddressInfo]:
        self.lookups += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", each)) for each in self.ports]

    def connector(
        self,
        limit: float = 20.0,
        username: str | None = None,
        password: str | None = None,
        lookups: Lookups | None = None,
    ) -> Connector:
        address = RedisAddress(f"redis://{HOST}", None, HOST, 6379, username, password)
        return Connector(address, lookups=lookups or Lookups(self), limit=limit)


@pytest.fixture
async def pair(redis: Redis, redis_server: RedisServer) -> AsyncIterator[list[Proxy]]:
    """Two proxies of one Redis."""
    async with Proxy(redis_server.port) as first, Proxy(redis_server.port) as second:
        yield [first, second]


@asynccontextmanager
async def connected(connection: RedisConnection) -> AsyncIterator[int]:
    """Connect for the length of the block; yield the port of the server."""
    async with asyncio.timeout(20):
        await connection.connect()
    try:
        yield connection.address[1]
    finally:
        await connection.disconnect(nowait=True)


async def test_an_address_that_refuses_or_drops_packets_does_not_fail_a_call(pair: list[Proxy]) -> None:
    async with AsyncExitStack() as stack:
        refusing, full = stack.enter_context(socket.socket()), stack.enter_context(socket.socket())
        for each in (refusing, full):
            each.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        name = Name(full.getsockname()[1], refusing.getsockname()[1], pair[0].port)
        store = await stack.enter_async_context(storing(name.connector()))
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED


async def test_the_name_is_looked_up_for_each_connection(pair: list[Proxy]) -> None:
    name = Name(pair[0].port)
    async with storing(name.connector()) as store:
        assert await store.outcome(Kind.LOOK) is Outcome.VACANT
        name.ports = (pair[1].port,)
        await pair[0].cut()
        await eventually(lambda: not store.store.connected)
        assert await store.outcome(Kind.LOOK) is Outcome.VACANT
        assert (name.lookups, pair[1].accepted) == (2, 1)


async def test_the_result_of_a_lookup_that_takes_longer_than_a_call_is_used_by_a_later_call(
    redis: Redis, redis_server: RedisServer
) -> None:
    answers = Event()
    name = Name(redis_server.port)

    def look_up(host: str, port: int) -> Sequence[AddressInfo]:
        found = name(host, port)
        answers.wait()
        return found

    lookups = Lookups(look_up)
    async with storing(name.connector(lookups=lookups)) as store:
        try:
            for _ in range(3):
                failure = await store.timeout(Kind.LOOK, limit=0.05)
                assert failure.text == f"the lookup of the name {HOST} gave no result in time"
        finally:
            answers.set()
        await eventually(lambda: not lookups.pending(HOST, 6379))
        assert await store.outcome(Kind.LOOK) is Outcome.VACANT
    assert name.lookups == 1, "a call discarded the lookup"


async def test_after_a_failure_the_other_address_of_the_name_is_tried_first(pair: list[Proxy]) -> None:
    """A server may accept connections and answer nothing. Each attempt continues with the next address."""
    first, second = pair
    async with storing(Name(first.port, second.port).connector()) as store:
        first.black_hole()
        await store.timeout(Kind.LOOK)
        assert await store.outcome(Kind.LOOK) is Outcome.VACANT
        second.black_hole()
        first.flow()
        await store.timeout(Kind.LOOK)
        assert await store.outcome(Kind.LOOK) is Outcome.VACANT
        assert (first.accepted, second.accepted) == (2, 1)


async def test_a_companion_goes_to_the_server_of_the_leading_connection(pair: list[Proxy]) -> None:
    first, second = pair
    name = Name(first.port, second.port)
    connector = name.connector()
    waits = asyncio.create_task(connector.companion().connect())
    await asyncio.sleep(0.05)
    assert not waits.done(), "the companion chose a server"
    waits.cancel()
    name.ports = (second.port, first.port)
    async with connected(connector()) as port:
        assert port == second.port
        name.ports = (first.port, second.port)
        async with connected(connector.companion()) as companion:
            assert companion == second.port
    assert name.lookups == 1


async def test_a_companion_is_closed_once_the_leading_connection_has_another_server(pair: list[Proxy]) -> None:
    first, second = pair
    name = Name(first.port, second.port)
    connector = name.connector()
    async with connected(connector()), connected(companion := connector.companion()):
        async with connected(connector()):
            assert not companion.ended, "the server is the same"
        name.ports = (second.port,)
        async with connected(connector()):
            await eventually(lambda: companion.ended)


async def test_the_watch_follows_the_election(pair: list[Proxy]) -> None:
    first, second = pair
    name = Name(first.port)
    connector = name.connector()
    async with watching(connector.companion) as watched, storing(connector) as store:
        watch = watched.watch
        assert watch.mode is WatchMode.OFF
        assert await store.outcome(Kind.LOOK) is Outcome.VACANT
        await eventually(lambda: watch.mode is WatchMode.TRACKING)
        name.ports = (second.port,)
        await store.store.close()
        assert await store.outcome(Kind.LOOK) is Outcome.VACANT
        await eventually(lambda: second.accepted == 2 and watch.mode is WatchMode.TRACKING)
        assert first.accepted == 2


async def test_the_watch_stays_when_a_replacement_of_the_elections_connection_fails(
    pair: list[Proxy], redis: Redis
) -> None:
    """The old connection of the election stays in use, so its server is still the watch's server."""
    command(redis, "ACL", "SETUSER", "sidecar", "on", ">x", "~*", "&*", "+@all")
    first, second = pair
    name = Name(first.port)
    connector = name.connector(username="sidecar", password="x")
    try:
        async with watching(connector.companion) as watch, storing(connector) as store:
            assert await store.outcome(Kind.LOOK) is Outcome.VACANT
            await watch.connected(WatchMode.TRACKING)
            name.ports = (second.port,)
            second.black_hole()
            failed = await store.store.replace()
            assert failed is not None
            assert failed.kind == "timeout"
            redis.set(KEYS["tracker"], "b")
            await watch.reports("tracker")  # a new connection of the watch would report every lease
            async with connected(connector.companion()) as companion:
                assert companion == first.port
    finally:
        command(redis, "ACL", "DELUSER", "sidecar")


async def test_a_socket_of_this_machine_serves_the_calls_and_the_watch() -> None:
    with TemporaryDirectory() as folder:  # the path of a socket has at most 107 characters
        path = Path(folder) / "redis.sock"
        connector = Connector(read({"REDIS_URL": f"unix://{path}"}).redis)
        async with storing(connector) as store:
            failure = await store.failure(Kind.ACQUIRE)
            assert (failure.kind, failure.may_execute, str(path) in failure.text) == ("connection", False, True)
            with RedisServer(Path(folder), arguments=("--unixsocket", str(path))):
                async with watching(connector) as watch:
                    await watch.connected(WatchMode.TRACKING)
                    assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
                    await watch.reports("tracker")
