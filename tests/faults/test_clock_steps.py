"""Steps of the Redis server's wall clock: a redis-server with a preloaded shim.

Without a C compiler this file is not collected, except in CI (conftest.py).
"""

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from ops.local.servers import redis_binary
from runtime.clock import elapsed
from service.database.connection import StaleTerm
from service.database.migrations import migrate
from service.database.store import Store
from tests.faults.stepped_redis import SteppedRedis, compiled
from tests.faults.tasks import MARGIN, TTL, Task, running, terms, tokens_in_order, two_believers
from tests.sidecar.conftest import BINARIES, client_of
from tests.support.proxy import Proxy
from tests.support.waiting import eventually, undisturbed
from tests.support.work_fakes import FakeTerm


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def server(tmp_path: Path, shim: Path) -> Iterator[SteppedRedis]:
    with SteppedRedis(tmp_path / "redis", shim, redis_binary()) as server:
        yield server


@pytest.mark.parametrize("binary", sorted(BINARIES))
def test_the_shim_shifts_the_clock_of_redis_and_the_expiry_of_its_keys(tmp_path: Path, shim: Path, binary: str) -> None:
    with SteppedRedis(tmp_path, shim, BINARIES[binary]) as server, client_of(server) as redis:
        redis.set("key", "x", ex=100)
        for step, off in ((50.0, 50.0), (-80.0, -30.0)):
            server.step(step)
            assert abs(redis.time()[0] - time.time() - off) < 20
            assert abs(redis.ttl("key") - (100 - off)) < 20
        server.step(150)
        assert redis.exists("key") == 0


@pytest.mark.slow
@pytest.mark.parametrize("step", [MARGIN - 0.1, 0.1 - MARGIN], ids=["forward", "back"])
async def test_a_clock_step_within_the_margin_ends_no_term_and_causes_no_two_leaders(
    server: SteppedRedis, tmp_path: Path, session: aiohttp.ClientSession, step: float
) -> None:
    async def breaks_nothing() -> None:
        async with AsyncExitStack() as open_:
            tasks = await two_tasks(open_, server, tmp_path, session)
            one, other = tasks
            token = one.token
            server.step(step)
            stepped_at = elapsed()
            await eventually(lambda: one.beliefs[-1].end > stepped_at + TTL * 2 / 3)  # time for renewals after the step
            assert (terms(one), other.beliefs) == ({token}, []), "the leader keeps its term"

            if step > 0:  # the worse case: a leader that is cut off cannot detect that the key expires earlier
                one.way.black_hole()
                server.step(step)
                await eventually(lambda: other.leads)
                assert two_believers(tasks) == []
                assert other.token > token

    await undisturbed(breaks_nothing, bears=1.5)  # a standstill of several seconds may also end the term


async def test_after_a_clock_step_beyond_the_margin_the_fence_refuses_the_old_term_and_tokens_rise(
    server: SteppedRedis, tmp_path: Path, session: aiohttp.ClientSession, database_url: str
) -> None:
    await migrate(database_url)
    async with AsyncExitStack() as open_:
        store = await open_.enter_async_context(await Store.connect(database_url))
        one, other = tasks = await two_tasks(open_, server, tmp_path, session)
        old = one.token
        await store.claim_fence(FakeTerm(old, one.name))
        one.way.black_hole()
        server.step(+600)  # the lease has ended in Redis, but the holder still believes that it leads
        await eventually(lambda: other.leads)
        await store.claim_fence(FakeTerm(other.token, other.name))
        with pytest.raises(StaleTerm):
            async with store.fenced(FakeTerm(old, one.name)):
                pass
        with pytest.raises(StaleTerm):
            await store.claim_fence(FakeTerm(old, one.name))

        one.way.flow()
        await one.way.cut()
        server.step(-1200)  # to a time before all granted tokens
        newest = other.token
        await eventually(lambda: not one.leads)
        await other.resign()
        await eventually(lambda: one.leads and one.token > newest)
        await store.claim_fence(FakeTerm(one.token, one.name))
        assert tokens_in_order(tasks) == sorted(tokens_in_order(tasks))


async def two_tasks(
    open_: AsyncExitStack, server: SteppedRedis, folder: Path, session: aiohttp.ClientSession
) -> tuple[Task, Task]:
    """Start two tasks whose clients ask; the first task leads, and the second task follows it."""
    ways = [await open_.enter_async_context(Proxy(server.port)) for _ in range(2)]
    one, other = (Task(folder, f"task-{name}", way, session) for name, way in zip("ab", ways, strict=True))
    await open_.enter_async_context(running(one, other))
    await open_.enter_async_context(one.campaigning())
    await eventually(lambda: one.leads)
    await open_.enter_async_context(other.campaigning())

    async def follows() -> bool:
        return (await other.status()).get("holder") == one.name

    await eventually(follows)
    return one, other
