"""A failover to a replica that lacks the last writes, with whole sidecars."""

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

OFF = {"FAILOVER_GUARD": "false"}
PATIENT = {"LEASE_TTL": "30"}
"""A ttl long enough that two clients believe at the same time that they lead, even on a slow machine."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("safe", "current", "next_one"),
    [
        pytest.param(True, {}, {}, id="guarded"),
        pytest.param(False, PATIENT | OFF, PATIENT | OFF, id="without the guard"),
        pytest.param(False, PATIENT, {}, id="the current holder has a longer ttl"),
        pytest.param(True, {}, {"LEASE_TTL": "12"}, id="the next holder has a longer ttl"),
    ],
)
async def test_after_a_failover_to_a_stale_replica_two_clients_lead_only_if_the_guard_is_off_or_too_short(
    tmp_path: Path,
    session: aiohttp.ClientSession,
    safe: bool,
    current: dict[str, str],
    next_one: dict[str, str],
) -> None:
    """The replica still shows the previous holder. The current holder is cut off and still leads."""
    async with AsyncExitStack() as open_:
        old = open_.enter_context(replicating(tmp_path / "old"))
        link = await open_.enter_async_context(Proxy(old.port))
        heir = open_.enter_context(replicating(tmp_path / "heir", of=link.port))
        ways = [await open_.enter_async_context(Proxy(old.port)) for _ in range(2)]
        settings = [{"FAILOVER_GUARD": "true"} | each for each in (current, next_one)]
        one, other = tasks = [
            Task(tmp_path, f"task-{name}", way, session, **chosen)
            for name, way, chosen in zip("ab", ways, settings, strict=True)
        ]
        # Record the server in the fence, as an earlier term would; otherwise the guard delays the first term.
        with client_of(old) as redis:
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
            if not safe:
                await eventually(lambda: two_believers(tasks))  # the overlap that the safe settings prevent
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
