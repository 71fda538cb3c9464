"""Changes of the keys by operators, other programs and Redis itself, while a whole sidecar leads."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from redis import Redis

from ops.local.servers import RedisServer
from sidecar.redis.store import fence_of
from tests.faults.tasks import STEADY, Task, running
from tests.sidecar.conftest import client_of
from tests.support.proxy import Proxy
from tests.support.waiting import eventually


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A client of a server that may evict keys, as ElastiCache does by default."""
    arguments = ("--maxmemory-policy", "volatile-lru")
    with RedisServer(tmp_path / "redis", arguments=arguments) as server, client_of(server) as redis:
        yield redis


@pytest.fixture
async def leader(redis: Redis, tmp_path: Path, session: aiohttp.ClientSession) -> AsyncIterator[Task]:
    async with Proxy(redis.connection_pool.connection_kwargs["port"]) as way:
        task = Task(tmp_path, "task-a", way, session, **STEADY)
        async with running(task), task.campaigning():
            await eventually(lambda: task.leads)
            yield task


async def _in_trouble(task: Task, word: str) -> bool:
    return word in str((await task.status())["trouble"])


async def test_a_renewal_restores_a_removed_ttl_and_a_foreign_key_without_a_ttl_is_reported(
    leader: Task, redis: Redis
) -> None:
    token = leader.token
    redis.persist(leader.key)
    await eventually(lambda: 0 < redis.ttl(leader.key) <= int(STEADY["LEASE_TTL"]))
    await eventually(lambda: leader.leads)
    assert leader.token == token

    redis.set(leader.key, "another program")
    await eventually(lambda: _in_trouble(leader, "the key has no TTL: another program holds it"))
    assert "the key has no TTL" in leader.sidecar.output
    await eventually(lambda: not leader.leads)
    redis.delete(leader.key)
    await eventually(lambda: leader.leads and leader.token > token)


async def test_an_eviction_policy_causes_a_warning_at_the_start_and_an_eviction_ends_the_term(
    leader: Task, redis: Redis
) -> None:
    assert "volatile-lru" in leader.sidecar.output
    token = leader.token
    redis.config_set("maxmemory", "1")
    await eventually(lambda: redis.exists(leader.key) == 0)
    await eventually(lambda: not leader.leads)
    redis.config_set("maxmemory", "0")
    await eventually(lambda: leader.leads and leader.token > token)


async def test_an_invalid_token_in_the_fence_ends_the_term_is_reported_and_is_not_overwritten(
    leader: Task, redis: Redis
) -> None:
    redis.hset(fence_of(leader.key), "token", "garbage")
    await eventually(lambda: not leader.leads)
    await eventually(lambda: _in_trouble(leader, "fence"))
    assert redis.hget(fence_of(leader.key), "token") == "garbage"
    redis.delete(fence_of(leader.key))
    await eventually(lambda: leader.leads)
