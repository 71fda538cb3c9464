"""Whole sidecars that reach several servers through one endpoint with TLS, as with ElastiCache Serverless."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from ops.local.servers import RedisServer
from sidecar.redis.store import fence_of
from tests.faults.replication import in_step, promote, replicating
from tests.faults.tasks import STEADY, Task, running, tokens_in_order, two_believers
from tests.sidecar.conftest import client_of
from tests.sidecar.redis.test_tls_texts import Certificates
from tests.support.proxy import Proxy
from tests.support.serverless import Serverless
from tests.support.waiting import eventually


@dataclass
class Store:
    """The owner of the keys, its replica behind a link, and an endpoint for each of two tasks."""

    servers: list[RedisServer]
    link: Proxy
    endpoints: list[Serverless]
    files: Certificates

    def task(self, folder: Path, number: int, session: aiohttp.ClientSession, **environment: str) -> Task:
        """Return a task with its own endpoint."""
        settings = {
            "REDIS_URL": "", "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(self.endpoints[number].port),
            "REDIS_CLUSTER": "true", "REDIS_TLS": "true", "REDIS_TLS_CA_FILE": str(self.files.ca),
            "FAILOVER_GUARD": "true",
        }  # fmt: skip
        no_way = Proxy(self.endpoints[number].port)
        return Task(folder, f"task-{number}", no_way, session, **(settings | environment))

    def served_for_long(self, key: str) -> None:
        """Record the owner as the server that last acted on the lease."""
        with client_of(self.servers[0]) as redis:
            known = {"run_id": redis.info("server")["run_id"], "replid": redis.info("replication")["master_replid"]}
            redis.hset(fence_of(key), mapping=known)

    def fail_over(self) -> None:
        """The owner dies, and its replica takes over behind the endpoints, whose connections stay open."""
        self.servers[0].kill()
        promote(self.servers[1])
        for endpoint in self.endpoints:
            endpoint.owner = self.servers[1].port
            endpoint.servers = [self.servers[1].port]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    files = Certificates(tmp_path)
    async with AsyncExitStack() as open_:
        owner = open_.enter_context(replicating(tmp_path / "owner"))
        link = await open_.enter_async_context(Proxy(owner.port))
        replica = open_.enter_context(replicating(tmp_path / "replica", of=link.port))
        await eventually(lambda: in_step(owner, replica))
        ports = [owner.port, replica.port]
        endpoints = [await open_.enter_async_context(Serverless(ports, files.accepts())) for _ in range(2)]
        yield Store([owner, replica], link, endpoints, files)


async def test_a_release_notice_hands_the_lease_over_and_the_weaker_watch_is_logged_once(
    store: Store, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    slow = {"LEASE_TTL": "120", "HEARTBEAT_INTERVAL": "60"}  # no heartbeat and no expiry comes within the test
    one, other = tasks = [store.task(tmp_path, number, session, **STEADY | slow) for number in range(2)]
    store.served_for_long(one.key)
    async with AsyncExitStack() as open_:
        await open_.enter_async_context(running(*tasks))
        client = await open_.enter_async_context(AsyncExitStack())
        await client.enter_async_context(one.campaigning())
        await eventually(lambda: one.leads)
        await open_.enter_async_context(other.campaigning())
        await eventually(lambda: _follows_and_watches(other))
        await eventually(lambda: _receives_releases(one))
        await client.aclose()
        await one.resign()
        await eventually(lambda: other.leads)
        for task in tasks:
            shown = await task.status()
            assert (shown["redis"]["guard"], shown["watch"]["mode"]) == ("on", "notices")
            assert "unknown command" in shown["watch"]["refusal"]
            said = [line["message"] for line in task.sidecar.lines() if line["level"] in ("WARNING", "ERROR")]
            assert len(said) == 1
            assert said[0].startswith("The watch receives only releases and operators' commands: ")
    assert two_believers(tasks) == []


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.slow
async def test_after_a_failover_behind_the_endpoint_two_clients_lead_only_without_the_guard(
    store: Store, tmp_path: Path, session: aiohttp.ClientSession, guard: bool
) -> None:
    """The replica lacks the term of the first task. That task is then cut off; the second task stays connected."""
    patient = {} if guard else {"LEASE_TTL": "30"}  # long enough for two believers, even on a slow machine
    one, other = tasks = [
        store.task(tmp_path, number, session, FAILOVER_GUARD=str(guard).lower(), **patient) for number in range(2)
    ]
    store.served_for_long(one.key)
    async with AsyncExitStack() as open_:
        await open_.enter_async_context(running(*tasks))
        await eventually(lambda: in_step(*store.servers))
        store.link.replies.hold()
        await open_.enter_async_context(one.campaigning())
        await eventually(lambda: one.leads)
        await open_.enter_async_context(other.campaigning())
        await eventually(lambda: _follows(other))
        await store.endpoints[0].refuse()
        store.fail_over()
        await eventually(lambda: other.leads)
        if not guard:
            await eventually(lambda: two_believers(tasks))  # the overlap that the guard prevents
            return
        assert two_believers(tasks) == []
        assert tokens_in_order(tasks) == sorted(tokens_in_order(tasks))


async def _follows(task: Task) -> bool:
    return bool((await task.status())["state"] == "following")


async def _follows_and_watches(task: Task) -> bool:
    return await _follows(task) and await _receives_releases(task)


async def _receives_releases(task: Task) -> bool:
    return bool((await task.status())["watch"]["mode"] == "notices")
