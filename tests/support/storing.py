"""A `RedisStore` for tests, with short timings and one call at a time."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from runtime.clock import elapsed
from sidecar.protocol import Call, Kind, Outcome, Reply, Timings
from sidecar.redis.connection import Connector, RedisConnection
from sidecar.redis.failures import Failure
from sidecar.redis.store import KeyedCall, RedisStore
from sidecar.server_kind import ServerKind
from sidecar.settings import RedisAddress

KEY = "portfolio:background_services:leader"
TIMINGS = Timings(ttl=6.0, heartbeat=2.0, grant_ttl=1.0, call_limit=0.5)


def at_port(
    port: int, kind: ServerKind = None, *, username: str | None = None, password: str | None = None, limit: float = 5.0
) -> Connector:
    """A function that makes connections to a port of this machine, as the sidecar does."""
    address = RedisAddress("redis://127.0.0.1", None, "127.0.0.1", port, username, password)
    return Connector(address, kind, limit=limit)


class Storing:
    """A caller for the candidate `a`."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self.token: int | None = None

    async def call(self, kind: Kind, *, limit: float = TIMINGS.call_limit, key: str = KEY) -> Reply | Failure:
        now = elapsed()
        token = self.token if kind in (Kind.RENEW, Kind.RELEASE) else None
        [result] = await self.store.execute([KeyedCall(key, Call(kind, now, now + limit, token, "boot-0"))])
        if isinstance(result, Reply) and result.outcome in (Outcome.ACQUIRED, Outcome.ADOPTED):
            self.token = result.token
        return result

    async def outcome(self, kind: Kind) -> Outcome:
        """The outcome of a call, which must get a reply."""
        result = await self.call(kind, limit=10.0)
        assert isinstance(result, Reply), result
        return result.outcome

    async def failure(self, kind: Kind, *, limit: float = 10.0) -> Failure:
        """The failure of a call; a busy machine may take seconds for an error."""
        result = await self.call(kind, limit=limit)
        assert isinstance(result, Failure), result
        return result

    async def timeout(self, kind: Kind, *, limit: float = TIMINGS.call_limit) -> Failure:
        """The failure of a call that times out."""
        failure = await self.failure(kind, limit=limit)
        assert failure.kind == "timeout", failure
        return failure


@asynccontextmanager
async def storing(
    connect: Callable[[], RedisConnection], *, min_replicas: int = 0, guard: bool = False, timings: Timings = TIMINGS
) -> AsyncIterator[Storing]:
    """A store with these connections, closed at the end."""
    store = RedisStore(connect, "a", timings, clock=elapsed, failover_guard=guard, min_replicas=min_replicas)
    try:
        yield Storing(store)
    finally:
        await store.close()
