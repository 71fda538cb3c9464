"""An absurd token in Redis, in the database or in both: what the refusals and the alerts say to do ends it.

With a real database, a real Redis and a real sidecar: after the commands the next term's token is accepted by the
database, and is larger than any that was given before.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import aiohttp
import asyncpg
import pytest
from redis import Redis

from ops.local.servers import RedisServer
from service.commands import fence
from service.database.connection import StaleTerm
from service.database.store import Store
from service.settings import read_settings
from sidecar.commands import fence as fence_command
from sidecar.commands import operator as commands
from sidecar.redis.store import fence_of
from tests.sidecar.conftest import client_of
from tests.support.service_processes import Sidecar
from tests.support.waiting import eventually

LEASE = "background_services"
ABSURD = 2**53 - 1
HOUR = 3600 * 10**6
TIMES = {"LEASE_TTL": "1.5", "HEARTBEAT_INTERVAL": "0.4", "GRANT_TTL": "0.7", "REDIS_TIMEOUT": "0.4"}


class Circle:
    """The operator, and what there is to operate."""

    def __init__(self, redis: Redis, redis_url: str, database_url: str, sidecar: Sidecar, store: Store) -> None:
        self.redis = redis
        self.store = store
        self.sidecar = sidecar
        self.environment = {"REDIS_URL": redis_url, **TIMES}
        self.database_url = database_url
        self.key = ""

    async def begin(self, session: aiohttp.ClientSession) -> None:
        async def keys() -> dict[str, str]:
            async with session.get(f"{self.sidecar.url}/status") as answer:
                found: dict[str, str] = (await answer.json())["keys"]
                return found

        self.key = (await eventually(keys))[LEASE]
        self.environment["LEASE_KEY"] = self.key.replace(LEASE, "{name}")

    async def sidecar_command(self, *words: str) -> str:
        said: list[str] = []
        said.append(await asyncio.to_thread(commands.run, words, self.environment, said.append))
        return "\n".join(said)

    async def service_command(self, *options: str) -> None:
        settings = read_settings(
            {
                "DATABASE_URL": self.database_url,
                "SIDECAR_URL": self.sidecar.url,
                "AUTH": "off",
                "PRICE_SOURCE": "simulated",
            }
        )
        await fence.run(fence.parse([LEASE, "--ttl", "1.5", *options]), settings)

    async def next_token(self, after: int = 0) -> int:
        """The token of the term that the sidecar has won with a larger one; it campaigns without a client."""

        def newer() -> int:
            token = int(self.redis.hget(fence_of(self.key), "token") or 0)
            return token if token > after and self.redis.get(self.key) == "one" else 0

        found: int = await eventually(newer)
        return found


@pytest.fixture
async def circle(
    redis_server: RedisServer,
    samples_url: str,
    new_sidecar: Callable[..., Sidecar],
    session: aiohttp.ClientSession,
    stack: AsyncExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> Circle:
    monkeypatch.setattr(fence_command, "LOOK_EVERY", 0.1)
    redis = stack.enter_context(client_of(redis_server))
    store = await stack.enter_async_context(await Store.connect(samples_url, connections=2))
    sidecar = await stack.enter_async_context(new_sidecar("one", REQUIRE_CLIENT="false", **TIMES))
    circle = Circle(redis, redis_server.url, samples_url, sidecar, store)
    await circle.begin(session)
    return circle


@pytest.mark.parametrize("where", [("redis",), ("database",), ("redis", "database")], ids="-".join)
async def test_the_commands_end_what_an_absurd_token_began(
    circle: Circle, samples_url: str, stack: AsyncExitStack, where: tuple[str, ...]
) -> None:
    legitimate = await circle.next_token()
    await circle.store.take_up(LEASE, legitimate, "one")
    if "redis" in where:
        circle.redis.hset(fence_of(circle.key), "token", str(ABSURD))
    if "database" in where:
        database = await asyncpg.connect(samples_url)
        stack.push_async_callback(database.close)
        await database.execute("update lease_fence set token = $1 where lease = $2", ABSURD, LEASE)
        with pytest.raises(StaleTerm, match=f"{ABSURD}.* python -m service fence {LEASE}"):
            await circle.store.take_up(LEASE, legitimate + 1, "two")

    await circle.sidecar_command("disable", LEASE, "600")
    await circle.service_command()
    of_the_database = (await circle.store.fences())[LEASE].token
    said = await circle.sidecar_command("fence", LEASE, "--above", str(of_the_database))
    assert "mended: the token is" in said or "nothing to mend" in said
    assert "is enabled" in await circle.sidecar_command("enable", LEASE)

    token = await circle.next_token(after=max(legitimate, of_the_database))
    assert token < ABSURD
    await circle.store.take_up(LEASE, token, "one")


async def test_where_redis_s_clock_is_behind_the_refusal_s_own_command_ends_it(
    circle: Circle, samples_url: str, stack: AsyncExitStack
) -> None:
    database = await asyncpg.connect(samples_url)
    stack.push_async_callback(database.close)
    ahead = await circle.next_token() + 5 * HOUR
    await database.execute("insert into lease_fence values ($1, $2, 'of another clock')", LEASE, ahead)
    with pytest.raises(StaleTerm, match=f"python -m sidecar fence {LEASE} --above {ahead}"):
        await circle.store.take_up(LEASE, ahead - HOUR, "one")

    await circle.sidecar_command("disable", LEASE, "600")
    await circle.sidecar_command("fence", LEASE, "--above", str(ahead))
    await circle.sidecar_command("enable", LEASE)
    token = await circle.next_token(after=ahead)
    assert token == ahead + 1
    await circle.store.take_up(LEASE, token, "one")
