"""A failover to a replica that missed the last writes, with whole sidecars."""

from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from sidecar.redis.store import fence_of
from tests.faults.replication import in_step, promote, replicating
from tests.faults.tasks import Task, running, tokens_in_order, two_believers
from tests.sidecar.conftest import client_of
from tests.support.proxy import Proxy
from tests.support.waiting import eventually


@pytest.mark.slow
@pytest.mark.parametrize("guard", [True, False])
async def test_two_clients_lead_after_a_failover_to_a_stale_replica_only_without_the_guard(
    tmp_path: Path, session: aiohttp.ClientSession, guard: bool
) -> None:
    """The replica still shows the previous holder; the current holder is cut off and goes on leading."""
    async with AsyncExitStack() as open_:
        old = open_.enter_context(replicating(tmp_path / "old"))
        link = await open_.enter_async_context(Proxy(old.port))
        heir = open_.enter_context(replicating(tmp_path / "heir", of=link.port))
        ways = [await open_.enter_async_context(Proxy(old.port)) for _ in range(2)]
        patient = {} if guard else {"LEASE_TTL": "30"}  # the two believe at the same time, however slow the rest is
        one, other = tasks = [
            Task(tmp_path, f"task-{name}", way, session, FAILOVER_GUARD=str(guard).lower(), **patient)
            for name, way in zip("ab", ways, strict=True)
        ]
        with client_of(old) as redis:  # as if it had served for long: otherwise the guard delays the first term too
            server, replication = redis.info("server"), redis.info("replication")
            known = {"run_id": server["run_id"], "replid": replication["master_replid"]}
            redis.hset(fence_of(one.key), mapping=known)
        await open_.enter_async_context(running(*tasks))
        await open_.enter_async_context(other.campaigning())
        await eventually(lambda: other.leads)
        async with one.campaigning():
            await eventually(lambda: in_step(old, heir))
            with client_of(heir) as redis:
                assert redis.get(other.key) == other.name
            link.replies.hold()
            await other.resign()
            await eventually(lambda: one.leads)

            ways[0].black_hole()
            old.kill()
            promote(heir)
            ways[1].target = heir.port
            await ways[1].cut()
            before = len(other.beliefs)
            await eventually(lambda: len(other.beliefs) > before)
            if not guard:
                await eventually(lambda: two_believers(tasks))  # otherwise this test could not fail
                return
            assert two_believers(tasks) == []
            assert other.token > one.token
            ways[0].target = heir.port
            ways[0].flow()
            await ways[0].cut()
            newest = other.token
            await other.resign()
            await eventually(lambda: one.leads and one.token > newest)
        assert two_believers(tasks) == []
        assert tokens_in_order(tasks) == sorted(tokens_in_order(tasks))
