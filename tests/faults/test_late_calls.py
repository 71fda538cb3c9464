"""Single calls that a network fault or a frozen server delays or loses, tested with whole sidecars."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from redis import Redis

from ops.local.servers import RedisServer
from runtime.clock import elapsed
from sidecar.redis.store import fence_of
from tests.faults.tasks import CALL_LIMIT, TTL, Task, running, terms, tokens_in_order, two_believers
from tests.sidecar.conftest import client_of
from tests.support.proxy import Proxy
from tests.support.waiting import eventually, undisturbed


@pytest.fixture
async def tasks(
    redis_of_its_own: RedisServer, tmp_path: Path, session: aiohttp.ClientSession
) -> AsyncIterator[tuple[Task, Task]]:
    """Two tasks that are connected to Redis, before any client asks."""
    async with Proxy(redis_of_its_own.port) as way, Proxy(redis_of_its_own.port) as other_way:
        tasks = Task(tmp_path, "task-a", way, session), Task(tmp_path, "task-b", other_way, session)
        async with running(*tasks):
            yield tasks


@pytest.fixture
async def one(redis_of_its_own: RedisServer, tmp_path: Path, session: aiohttp.ClientSession) -> AsyncIterator[Task]:
    """A single task with a ttl so long that no key expires within a test."""
    async with Proxy(redis_of_its_own.port) as way:
        task = Task(tmp_path, "task-a", way, session, LEASE_TTL="30")
        async with running(task):
            yield task


def scripts_run(redis: Redis) -> int:
    return int(redis.info("commandstats").get("cmdstat_eval", {}).get("calls", 0))


async def test_an_executed_acquire_whose_reply_was_lost_becomes_the_sidecars_term(
    redis_of_its_own: RedisServer, one: Task
) -> None:
    with client_of(redis_of_its_own) as redis:
        one.way.replies.lose()
        async with one.campaigning():
            await eventually(lambda: redis.get(one.key) == one.name)
            token = int(redis.hget(fence_of(one.key), "token") or 0)
            assert not one.leads, "no client was granted the term"
            one.way.flow()
            await eventually(lambda: one.leads)
            assert one.token == token


@pytest.mark.slow
async def test_an_acquire_that_arrives_after_its_client_has_left_acquires_no_lease(
    redis_of_its_own: RedisServer, one: Task
) -> None:
    with client_of(redis_of_its_own) as redis:
        before = scripts_run(redis)
        redis_of_its_own.pause()
        async with one.campaigning():
            await eventually(lambda: _says(one, "timeout"))
        await eventually(lambda: _says(one, "waiting", "state"))
        unwanted_since = elapsed()  # the sidecar sends no acquire from now on, and the last acquire has a deadline
        await eventually(lambda: elapsed() > unwanted_since + 2 * CALL_LIMIT)
        redis_of_its_own.resume()
        await eventually(lambda: scripts_run(redis) > before)
        assert redis.exists(one.key, fence_of(one.key)) == 0
        assert one.beliefs == []


@pytest.mark.slow
async def test_a_late_release_and_late_renewals_do_not_change_the_next_term(
    redis_of_its_own: RedisServer, tasks: tuple[Task, Task]
) -> None:
    one, other = tasks

    async def touches_nothing() -> None:
        one.way.flow()
        earlier = terms(other)
        async with AsyncExitStack() as open_:
            redis = open_.enter_context(client_of(redis_of_its_own))
            async with one.campaigning():
                await eventually(lambda: one.leads)
            await open_.enter_async_context(other.campaigning())
            one.way.requests.hold()
            await one.resign()
            await eventually(lambda: other.leads)  # at the key's expiry: the release has not arrived
            before = scripts_run(redis)
            one.way.requests.flow()
            await eventually(lambda: scripts_run(redis) > before)
            arrived_at = elapsed()
            await eventually(lambda: other.beliefs[-1].end > arrived_at + TTL / 2)
            assert len(terms(other) - earlier) == 1, "the term of the other task must continue"
            assert redis.get(one.key) == other.name
            assert two_believers(tasks) == []

    await undisturbed(touches_nothing, bears=1.5)


@pytest.mark.slow
async def test_a_renewal_whose_reply_arrives_after_the_deadline_does_not_revive_the_term(
    redis_of_its_own: RedisServer, tasks: tuple[Task, Task]
) -> None:
    one, other = tasks

    async def revives_nothing() -> None:
        one.way.flow()
        async with one.campaigning():
            await eventually(lambda: one.leads)
            async with other.campaigning():
                one.way.replies.hold()
                held_at = elapsed()
                await eventually(lambda: other.leads)
                assert one.beliefs[-1].end <= held_at + TTL * 5 / 6
                one.way.replies.flow()
                token, flowed_at = other.token, elapsed()
                await eventually(lambda: other.beliefs[-1].end > flowed_at + TTL / 2)
                assert all(belief.began < flowed_at for belief in one.beliefs)
                assert other.token == token
        assert two_believers(tasks) == []
        assert tokens_in_order(tasks) == sorted(tokens_in_order(tasks))

    await undisturbed(revives_nothing, bears=1.5)


async def _says(task: Task, word: str, field: str = "trouble") -> bool:
    return word in str((await task.status())[field])
