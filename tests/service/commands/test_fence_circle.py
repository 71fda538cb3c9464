"""An absurd token in Redis, in the database or in both is repaired by the commands that errors and alerts name.

After the commands, the database accepts the next term's token. This token is smaller than the absurd token and larger
than every other earlier token.
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
from tests.support.processes import Sidecar
from tests.support.waiting import eventually
from tests.support.work_fakes import FakeTerm

LEASE = "background_services"
ABSURD = 2**53 - 1
HOUR = 3600 * 10**6
TIMES = {"LEASE_TTL": "1.5", "HEARTBEAT_INTERVAL": "0.4", "GRANT_TTL": "0.7", "REDIS_TIMEOUT": "0.4"}


class Operator:
    """The commands of an operator, and the servers that they act on."""

    def __init__(self, redis: Redis, redis_url: str, database_url: str, sidecar: Sidecar, store: Store) -> None:
        self.redis = redis
        self.store = store
        self.sidecar = sidecar
        self.environment = {"REDIS_URL": redis_url, **TIMES}
        self.database_url = database_url
        self.key = ""

    async def begin(self, session: aiohttp.ClientSession) -> None:
        self.session = session

        async def keys() -> dict[str, str]:
            async with session.get(f"{self.sidecar.url}/status") as answer:
                found: dict[str, str] = (await answer.json())["keys"]
                return found

        self.key = (await eventually(keys))[LEASE]
        self.environment["LEASE_KEY"] = self.key.replace(LEASE, "{name}")

    async def disable(self) -> None:
        """Disable the lease, and wait until the sidecar no longer leads."""
        await self.sidecar_command("disable", LEASE, "600")
        await eventually(self._does_not_lead)

    async def _does_not_lead(self) -> bool:
        async with self.session.get(f"{self.sidecar.url}/status") as answer:
            return str((await answer.json())["leases"][LEASE]["state"]) != "leading"

    async def sidecar_command(self, *words: str) -> str:
        said: list[str] = []
        assert await asyncio.to_thread(commands.run, words, self.environment, said.append) is None
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
        """Wait for the sidecar's next term, and return its token. The sidecar campaigns without a client."""

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
) -> Operator:
    monkeypatch.setattr(fence_command, "LOOK_EVERY", 0.1)
    redis = stack.enter_context(client_of(redis_server))
    store = await stack.enter_async_context(await Store.connect(samples_url, connections=2))
    sidecar = await stack.enter_async_context(new_sidecar("one", REQUIRE_CLIENT="false", **TIMES))
    circle = Operator(redis, redis_server.url, samples_url, sidecar, store)
    await circle.begin(session)
    return circle


@pytest.mark.parametrize("where", [("redis",), ("database",), ("redis", "database")], ids="-".join)
async def test_the_commands_repair_a_token_far_in_the_future(
    circle: Operator, samples_url: str, stack: AsyncExitStack, where: tuple[str, ...]
) -> None:
    legitimate = await circle.next_token()
    await circle.store.claim_fence(FakeTerm(legitimate, "one", LEASE))
    if "redis" in where:
        circle.redis.hset(fence_of(circle.key), "token", str(ABSURD))
    if "database" in where:
        database = await asyncpg.connect(samples_url)
        stack.push_async_callback(database.close)
        await database.execute("update lease_fence set token = $1 where lease = $2", ABSURD, LEASE)
        with pytest.raises(StaleTerm, match=f"{ABSURD}.* python -m service fence {LEASE}"):
            await circle.store.claim_fence(FakeTerm(legitimate + 1, "two", LEASE))

    await circle.disable()
    await circle.service_command()
    of_the_database = (await circle.store.fences())[LEASE].token
    said = await circle.sidecar_command("fence", LEASE, "--above", str(of_the_database))
    assert "the token is" in said or "nothing to" in said
    assert "is enabled" in await circle.sidecar_command("enable", LEASE)

    token = await circle.next_token(after=max(legitimate, of_the_database))
    assert token < ABSURD
    await circle.store.claim_fence(FakeTerm(token, "one", LEASE))


async def test_if_redis_s_clock_is_behind_the_command_that_the_refusal_names_repairs_the_fence(
    circle: Operator, samples_url: str, stack: AsyncExitStack
) -> None:
    database = await asyncpg.connect(samples_url)
    stack.push_async_callback(database.close)
    ahead = await circle.next_token() + 5 * HOUR
    await database.execute("insert into lease_fence values ($1, $2, 'of another clock')", LEASE, ahead)
    with pytest.raises(StaleTerm, match=f"python -m sidecar fence {LEASE} --above {ahead}"):
        await circle.store.claim_fence(FakeTerm(ahead - HOUR, "one", LEASE))

    await circle.disable()
    await circle.sidecar_command("fence", LEASE, "--above", str(ahead))
    await circle.sidecar_command("enable", LEASE)
    token = await circle.next_token(after=ahead)
    assert token == ahead + 1
    await circle.store.claim_fence(FakeTerm(token, "one", LEASE))
