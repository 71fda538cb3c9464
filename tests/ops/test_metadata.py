"""The metadata endpoint answers a sidecar's requests in the format of ECS."""

import re
from datetime import UTC, datetime

import aiohttp

from ops.local.metadata import ContainerView, MetadataServer, new_task_id
from runtime.lookup import Lookups
from sidecar.identity import instance_id

VIEW = ContainerView(image="test", known_status="RUNNING", health="HEALTHY", started_at=datetime.now(UTC))


async def test_a_sidecar_reads_its_task_id_from_the_endpoint() -> None:
    task_id = new_task_id()
    assert re.fullmatch(r"[0-9a-f]{32}", task_id)
    async with MetadataServer("family", lambda asked: {"sidecar": VIEW} if asked == task_id else None) as server:
        assert await instance_id(None, server.uri(task_id, "sidecar"), Lookups()) == task_id


async def test_the_answers_have_the_fields_of_ecs() -> None:
    async with (
        MetadataServer("family", lambda _: {"api": VIEW}) as server,
        aiohttp.ClientSession() as session,
    ):
        uri = server.uri("t" * 32, "api")
        async with session.get(f"{uri}/task") as answer:
            task = await answer.json()
        async with session.get(uri) as answer:
            container = await answer.json()
    assert task["TaskARN"].endswith(f":task/make-run/{'t' * 32}")
    assert task["Cluster"].startswith("arn:aws:ecs:")
    assert (task["Family"], task["Revision"]) == ("family", "1")
    assert task["ClockDrift"]["ClockSynchronizationStatus"] == "SYNCHRONIZED"
    assert task["Containers"] == [container]
    assert (container["Name"], container["Health"]) == ("api", {"status": "HEALTHY"})


async def test_an_unknown_task_or_container_is_not_found() -> None:
    async with (
        MetadataServer("family", lambda asked: {"api": VIEW} if asked == "known" else None) as server,
        aiohttp.ClientSession() as session,
    ):
        for task_id, name in (("unknown", "api"), ("known", "other")):
            async with session.get(f"{server.uri(task_id, name)}/task") as answer:
                assert answer.status == 404
