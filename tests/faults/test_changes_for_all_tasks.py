"""A rolling deploy that moves the leases to a new place: no task leads there while an old task may lead.

Old and new tasks are whole sidecars, and the operator's commands are real processes. docs/redis.md has the procedure.
"""

from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from redis import Redis

from ops.local.servers import RedisServer
from sidecar.redis.store import fence_of
from tests.faults.tasks import LEASE, Task, running, tokens_in_order, two_believers
from tests.support.processes import command_of
from tests.support.proxy import Proxy
from tests.support.redis_cluster import redis_cluster
from tests.support.redis_sentinels import redis_sentinels
from tests.support.waiting import eventually

UNGUARDED = {"FAILOVER_GUARD": "false"}
"""Settings without the failover guard.

The guard delays the first term at the new place, and so could prevent two leaders even without the procedure.
"""

SLOWER = {"REDIS_URL": "", "LEASE_TTL": "24", "REDIS_TIMEOUT": "2"}
"""Settings for sentinels. A call may take at most a twelfth of the ttl there, and may need 2 s on a busy machine."""

HOUR = 3600 * 1_000_000
"""An hour in the unit of a token (µs)."""


class Deploy:
    """Two old tasks, and the two new tasks that replace them, each with its client."""

    def __init__(self, old: list[Task], new: list[Task], open_: AsyncExitStack) -> None:
        self.old = old
        self.new = new
        self._open = open_
        self._clients: dict[str, AsyncExitStack] = {}

    @property
    def tasks(self) -> list[Task]:
        return [*self.old, *self.new]

    async def start(self, task: Task) -> None:
        """Start the sidecar, then its client."""
        await self._open.enter_async_context(running(task))
        client = self._clients[task.name] = await self._open.enter_async_context(AsyncExitStack())
        await client.enter_async_context(task.campaigning())

    async def stop(self, task: Task) -> None:
        """Stop a task as ECS does: the client first, which resigns, then the sidecar."""
        await self._clients[task.name].aclose()
        await task.resign()
        task.sidecar.send()
        assert await task.sidecar.end() == 0

    async def operator(self, task: Task, *words: str) -> str:
        """Run `python -m sidecar WORDS` with the settings of a task, and return its output."""
        log = f"{task.sidecar._log}.{words[0]}"
        async with command_of("sidecar", Path(log), *words, **task.sidecar.environment) as command:
            assert await command.end() == 0, command.output
            return command.output

    async def is_in(self, task: Task, state: str) -> None:
        """Wait until a task is in this state."""

        async def there() -> bool:
            return bool((await task.status())["state"] == state)

        await eventually(there)


@asynccontextmanager
async def places(kind: str, folder: Path) -> AsyncIterator[tuple[int, dict[str, str]]]:
    """Yield the port of the old place and the settings of the new place."""
    async with AsyncExitStack() as open_:
        old = open_.enter_context(RedisServer(folder / "old"))
        if kind == "address":
            other = open_.enter_context(RedisServer(folder / "new"))
            yield old.port, {"REDIS_URL": other.url}
        elif kind == "database":
            yield old.port, {"REDIS_URL": f"redis://127.0.0.1:{old.port}/1"}
        elif kind == "key":
            yield old.port, {"LEASE_KEY": "{portfolio}:{name}:leader"}
        elif kind == "ttl":
            yield old.port, {"LEASE_TTL": "24"}
        elif kind == "cluster, the same server":
            cluster = await open_.enter_async_context(redis_cluster(folder / "cluster"))
            owner = cluster.owner(f"{folder.name}:{LEASE}")
            assert owner is not None
            yield owner.port, {"REDIS_URL": cluster.other(owner).url, "REDIS_CLUSTER": "true"}
        elif kind == "sentinels, the same server":
            group = await open_.enter_async_context(redis_sentinels(folder / "group"))
            yield group.servers[0].port, SLOWER | group.environment
        elif kind == "cluster":
            cluster = await open_.enter_async_context(redis_cluster(folder / "cluster"))
            yield old.port, {"REDIS_URL": cluster.nodes[0].url, "REDIS_CLUSTER": "true"}
        else:
            group = await open_.enter_async_context(redis_sentinels(folder / "group"))
            yield old.port, SLOWER | group.environment


@asynccontextmanager
async def deploy(kind: str, folder: Path, session: aiohttp.ClientSession) -> AsyncIterator[Deploy]:
    """Yield a deploy in which the old tasks run and one of them leads; the new tasks are not started yet."""
    async with AsyncExitStack() as open_:
        port, settings = await open_.enter_async_context(places(kind, folder))
        way = await open_.enter_async_context(Proxy(port))
        old = [Task(folder, f"old-{number}", way, session, **UNGUARDED) for number in (1, 2)]
        new = [Task(folder, f"new-{number}", way, session, **UNGUARDED, **settings) for number in (1, 2)]
        rolling = Deploy(old, new, open_)
        for task in old:
            await rolling.start(task)
        await eventually(lambda: any(task.leads for task in old))
        yield rolling


CHANGES = ["address", "database", "key", "cluster", "sentinels"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.slow
async def test_only_old_tasks_lead_until_the_new_place_is_enabled_and_only_new_tasks_afterwards(
    tmp_path: Path, session: aiohttp.ClientSession, change: str
) -> None:
    async with deploy(change, tmp_path, session) as rolling:
        first, second = rolling.new
        assert "is disabled for 3600 s" in await rolling.operator(first, "disable", LEASE, "3600")
        for new, old in zip(rolling.new, rolling.old, strict=True):
            await rolling.start(new)
            await rolling.is_in(new, "disabled")
            assert any(task.leads for task in rolling.old), "the work goes on until the last old task stops"
            await rolling.stop(old)
            if old is rolling.old[0]:
                await eventually(lambda: rolling.old[1].leads)
        assert not any(task.beliefs for task in rolling.new)
        assert "is enabled" in await rolling.operator(second, "enable", LEASE)
        await eventually(lambda: any(task.leads for task in rolling.new))
        assert two_believers(rolling.tasks) == []
        assert tokens_in_order(rolling.tasks) == sorted(tokens_in_order(rolling.tasks))


@pytest.mark.parametrize("change", ["cluster, the same server", "sentinels, the same server"])
@pytest.mark.slow
async def test_a_change_of_the_connection_to_the_same_server_needs_no_procedure(
    tmp_path: Path, session: aiohttp.ClientSession, change: str
) -> None:
    async with deploy(change, tmp_path, session) as rolling:
        for new, old in zip(rolling.new, rolling.old, strict=True):
            await rolling.start(new)
            await rolling.is_in(new, "following")
            await rolling.stop(old)
            await eventually(lambda: any(task.leads for task in rolling.tasks))
        await eventually(lambda: any(task.leads for task in rolling.new))
        assert two_believers(rolling.tasks) == []


@pytest.mark.parametrize("change", ["address", "key"])
@pytest.mark.slow
async def test_a_rolling_deploy_without_the_procedure_has_two_leaders(
    tmp_path: Path, session: aiohttp.ClientSession, change: str
) -> None:
    """This shows that the other tests can fail: without the procedure, two clients believe that they lead."""
    async with deploy(change, tmp_path, session) as rolling:
        await rolling.start(rolling.new[0])
        await eventually(lambda: two_believers(rolling.tasks))


@pytest.mark.slow
async def test_a_first_deploy_with_campaign_false_moves_the_leases_without_an_operator(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """The first deploy brings the new settings with CAMPAIGN=false; the second deploy lets the tasks campaign."""
    async with deploy("address", tmp_path, session) as rolling:
        follower, leader = rolling.new
        follower.sidecar.environment["CAMPAIGN"] = "false"
        await rolling.start(follower)
        await rolling.is_in(follower, "following")
        for old in rolling.old:
            await rolling.stop(old)
        await rolling.start(leader)
        await eventually(lambda: leader.leads)
        assert not follower.beliefs
        assert two_believers(rolling.tasks) == []


@pytest.mark.slow
async def test_fence_above_raises_the_first_token_at_the_new_place_above_the_old_tokens(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """The tokens at the old place are an hour in the future, as from a clock that is ahead."""
    async with deploy("address", tmp_path, session) as rolling:
        new, ahead = rolling.new[0], max(task.token for task in rolling.old) + HOUR
        with Redis(port=new.way.target) as redis:
            redis.hset(fence_of(new.key), "token", ahead)
        await eventually(lambda: any(task.leads and task.token >= ahead for task in rolling.old))
        await rolling.operator(new, "disable", LEASE, "3600")
        await rolling.start(new)
        for old in rolling.old:
            await rolling.stop(old)
        newest = max(task.token for task in rolling.old)
        assert "repaired" in await rolling.operator(new, "fence", LEASE, "--above", str(newest))
        await rolling.operator(new, "enable", LEASE)
        await eventually(lambda: new.leads)
        assert newest < new.token < newest + HOUR
        assert tokens_in_order(rolling.tasks) == sorted(tokens_in_order(rolling.tasks))


@pytest.mark.slow
async def test_a_change_of_the_ttl_while_the_lease_is_disabled_causes_no_two_leaders(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with deploy("ttl", tmp_path, session) as rolling:
        await rolling.operator(rolling.new[0], "disable", LEASE, "3600")
        await eventually(lambda: not any(task.leads for task in rolling.old))
        for new, old in zip(rolling.new, rolling.old, strict=True):
            await rolling.start(new)
            await rolling.stop(old)
        assert not any(task.beliefs for task in rolling.new)
        await rolling.operator(rolling.new[0], "enable", LEASE)
        await eventually(lambda: any(task.leads for task in rolling.new))
        assert two_believers(rolling.tasks) == []


@pytest.mark.slow
async def test_disabling_the_old_place_ends_the_terms_of_old_tasks_that_still_run(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with deploy("address", tmp_path, session) as rolling:
        new = rolling.new[0]
        await rolling.operator(new, "disable", LEASE, "3600")
        await rolling.start(new)
        await rolling.operator(rolling.old[0], "disable", LEASE, "3600")
        await eventually(lambda: not any(task.leads for task in rolling.old))
        for old in rolling.old:
            await rolling.is_in(old, "disabled")
        await rolling.operator(new, "enable", LEASE)
        await eventually(lambda: new.leads)
        assert two_believers(rolling.tasks) == []


@pytest.mark.slow
async def test_a_task_with_a_shorter_ttl_than_the_holder_reports_the_holders_ttl_once(
    tmp_path: Path, session: aiohttp.ClientSession, redis_of_its_own: RedisServer
) -> None:
    async with AsyncExitStack() as open_:
        way = await open_.enter_async_context(Proxy(redis_of_its_own.port))
        others = await open_.enter_async_context(Proxy(redis_of_its_own.port))
        longer = Task(tmp_path, "longer", others, session, **UNGUARDED, LEASE_TTL="24")
        equal = Task(tmp_path, "equal", others, session, **UNGUARDED, LEASE_TTL="24")
        shorter = Task(tmp_path, "shorter", way, session, **UNGUARDED, LEASE_TTL="8")
        await open_.enter_async_context(running(longer, shorter, equal))
        client = await open_.enter_async_context(AsyncExitStack())
        await client.enter_async_context(longer.campaigning())
        await eventually(lambda: longer.leads)
        await open_.enter_async_context(shorter.campaigning())
        await open_.enter_async_context(equal.campaigning())

        async def says() -> str:
            return str((await shorter.status())["trouble"])

        await eventually(lambda: _holds(says(), "the key of longer lives for longer than this task's LEASE_TTL (8 s)"))
        await way.refuse()
        await eventually(lambda: _holds(says(), "connection"))
        await way.accept()
        await eventually(lambda: _holds(says(), "LEASE_TTL"))
        assert (await equal.status())["trouble"] is None
        await client.aclose()
        await longer.resign()
        await eventually(lambda: shorter.leads or equal.leads)
        said = [line for line in shorter.sidecar.lines() if "the key of longer lives" in line["message"]]
        assert [(line["level"], line["lease"]) for line in said] == [("WARNING", LEASE)]
        assert not any("LEASE_TTL" in message for message in equal.sidecar.messages())


async def _holds(told: Awaitable[str], part: str) -> bool:
    return part in await told
