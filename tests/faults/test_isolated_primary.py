"""An old primary that is cut off still serves while its replica is promoted: the reason for MIN_REPLICAS."""

from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from runtime.clock import elapsed
from tests.faults.replication import in_step, promote, replicating
from tests.faults.tasks import TTL, Task, running, two_believers
from tests.support.proxy import Proxy
from tests.support.waiting import eventually


@pytest.mark.slow
@pytest.mark.parametrize("min_replicas", [1, 0])
async def test_two_clients_lead_at_an_isolated_primary_and_its_promoted_replica_only_without_min_replicas(
    tmp_path: Path, session: aiohttp.ClientSession, min_replicas: int
) -> None:
    """The failover guard is off here, so only the replicas' confirmation prevents two leaders."""
    async with AsyncExitStack() as open_:
        old = open_.enter_context(replicating(tmp_path / "old"))
        link = await open_.enter_async_context(Proxy(old.port))
        heir = open_.enter_context(replicating(tmp_path / "heir", of=link.port))
        if min_replicas:
            open_.enter_context(replicating(tmp_path / "heir's own replica", of=heir.port))
        ways = [await open_.enter_async_context(Proxy(old.port)) for _ in range(2)]
        await eventually(lambda: in_step(old, heir))

        one, other = (
            Task(tmp_path, f"task-{name}", way, session, MIN_REPLICAS=str(min_replicas))
            for name, way in zip("ab", ways, strict=True)
        )
        await open_.enter_async_context(running(one, other))
        await open_.enter_async_context(one.campaigning())
        await eventually(lambda: one.leads)
        await open_.enter_async_context(other.campaigning())

        link.black_hole()
        isolated_at = elapsed()
        promote(heir)
        ways[1].target = heir.port  # the name now resolves to the replica; the first task's connection stays open
        await ways[1].cut()
        await eventually(lambda: other.leads)
        leads_at = other.beliefs[0].began
        if min_replicas:
            assert two_believers([one, other]) == []
            assert one.beliefs[-1].end < leads_at < isolated_at + 2 * TTL
            assert not one.leads
            assert old.process is not None, "the old primary must run until the end of the test"
        else:
            await eventually(lambda: two_believers([one, other]))  # the overlap that MIN_REPLICAS prevents
