"""A task with CAMPAIGN=false looks for the leader and never leads."""

import signal
from pathlib import Path

import aiohttp
import pytest
import redis

from ops.local.servers import RedisServer
from sidecar.client import LeaseClient, Term
from sidecar.protocol import Kind, Outcome, State
from tests.support.one_lease import T, answer, due, fresh_lease
from tests.support.processes import RealSidecar, get_json, killed_at_exit
from tests.support.waiting import eventually

NAME = "background_services"


@pytest.mark.parametrize("require_client", [True, False])
def test_a_task_that_follows_only_looks_once_a_heartbeat_and_never_acquires(require_client: bool) -> None:
    lease = fresh_lease(100.0, require_client=require_client, campaign=False)
    now, calls = 100.0, 0
    while now < 100 + 10 * T.heartbeat:
        lease.asked(now)
        if call := lease.next_call(now):
            assert call.kind is Kind.LOOK
            calls += 1
            answer(lease, call, now, Outcome.VACANT, holder=None)
        assert lease.wake_at(now) > now
        assert lease.view(now).state is State.FOLLOWING
        now = min(lease.wake_at(now), now + T.grant_ttl)
    assert 10 <= calls <= 12
    assert [transition.reason for transition in lease.transitions()] == ["vacant"]
    assert not lease.leads(now)
    assert lease.grant(now, now) is None


def test_a_task_that_follows_only_looks_after_a_notice() -> None:
    lease = fresh_lease(100.0, campaign=False)
    lease.asked(100)
    lease.hold()
    answer(lease, due(lease, 100, Kind.LOOK), 100, Outcome.HELD, holder="other")
    assert lease.view(100).holder == "other"
    lease.noticed(101)
    answer(lease, due(lease, 101, Kind.LOOK), 101, Outcome.DISABLED, holder="DISABLED")
    assert lease.view(101).state is State.DISABLED
    assert [transition.reason for transition in lease.transitions()] == ["held"]


def test_a_task_that_follows_only_looks_no_more_often_at_a_key_with_its_own_id() -> None:
    """An earlier process with the same id campaigned. Its key remains until it expires."""
    lease = fresh_lease(100.0, campaign=False)
    lease.asked(100)
    answer(lease, due(lease, 100, Kind.LOOK), 100, Outcome.SUPERSEDED, holder="a")
    assert lease.wake_at(100) > 101


async def test_a_task_that_follows_only_never_leads_and_reports_it(redis_server: RedisServer, tmp_path: Path) -> None:
    follower = RealSidecar(tmp_path, redis_server, "canary", CAMPAIGN="false", HEARTBEAT_INTERVAL="1")
    leader = RealSidecar(tmp_path, redis_server, "task-a", HEARTBEAT_INTERVAL="1")
    with killed_at_exit(follower, leader), redis.Redis.from_url(redis_server.url) as operator:
        follower.start()
        await eventually(lambda: get_json(f"{follower.url}/is-leader/{NAME}"))

        async def state() -> str:
            return str((await get_json(f"{follower.url}/is-leader/{NAME}")).get("state"))

        await eventually(lambda: _is(state, "following"))
        before = operator.info("commandstats").get("cmdstat_eval", {}).get("calls", 0)
        assert operator.get(f"{tmp_path.name}:{NAME}") is None
        assert (await get_json(f"{follower.url}/status"))["campaign"] is False
        async with aiohttp.ClientSession() as session, session.get(follower.metrics_url) as response:
            text = await response.text()
        assert f'sidecar_campaigns{{lease="{NAME}"}} 0.0' in text
        assert "CAMPAIGN is false: this task follows only" in follower.output
        leader.start()
        async with LeaseClient(leader.url) as client:

            async def work(term: Term) -> None:
                async def sees() -> bool:
                    answer = await get_json(f"{follower.url}/is-leader/{NAME}?wait=5&version=0-0")
                    return answer.get("holder") == term.holder and not answer["is_leader"]

                await eventually(sees)

            await eventually(lambda: get_json(f"{leader.url}/healthz"))
            await client.leadership(NAME).run(work)
        assert (await get_json(f"{leader.url}/status"))["campaign"] is True
        after = operator.info("commandstats").get("cmdstat_eval", {}).get("calls", 0)
        assert 0 < after - before < 50, "the task looks at a vacant key without a pause"
        assert follower.stop(signal.SIGTERM) == 0


async def _is(what, wanted: str) -> bool:  # type: ignore[no-untyped-def]
    return bool(await what() == wanted)
