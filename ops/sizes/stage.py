"""One task of real containers with its servers and a given number of portfolios."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import asyncpg
from prometheus_client.parser import text_string_to_metric_families

from bench.tracker.portfolios import fill
from ops.local.metadata import ContainerView
from ops.rehearse.balancer import Balancer
from ops.rehearse.cgroups import task_group
from ops.rehearse.endpoints import Protections, endpoints_server
from ops.rehearse.environment import container_environment
from ops.rehearse.isolation import until
from ops.rehearse.journal import Journal
from ops.rehearse.member import API, Member
from ops.rehearse.names import Names
from ops.rehearse.network import Pods
from ops.rehearse.podman import run_once
from ops.rehearse.profile import Profile
from ops.rehearse.programs import RehearsalError
from ops.rehearse.servers import RedisPair, TlsPostgres
from ops.rehearse.versions import Version
from service.market.calendar import AroundTheClockCalendar
from tests.support.tls import Authority

PROFILE = Profile(
    "sizes",
    deregistration_delay=0.0,
    settle=0.0,
    cut=0.0,
    requests=0.0,
    streams=0,
    variables={"AUTH": "off", "TRACKER_INTERVAL": "30"},
)
"""Profile with production's tracker interval.

The market never closes, and prices are simulated. AUTH is off, so no user's limit of open streams applies.
"""

HEALTHY_WITHIN = 120.0
"""Limit for the task to become healthy, in seconds."""


class LargePostgres(TlsPostgres):
    """A Postgres with memory for a million portfolios."""

    def command(self) -> list[str]:
        """The command line."""
        return [*super().command(), "-c", "shared_buffers=1GB", "-c", "max_wal_size=4GB"]


class Stage:
    """The servers, the portfolios and the tasks; `running` starts the servers."""

    def __init__(self, folder: Path, version: Version, pods: Pods, journal: Journal) -> None:
        (folder / "postgres").mkdir(parents=True)
        authority = Authority("sizes")
        authority.write(folder / "ca.crt")
        self.journal = journal
        self.postgres = LargePostgres(folder / "postgres", authority)
        self._folder = folder
        self._version = version
        self._pods = pods
        self._redis = RedisPair(folder, Names(folder), authority)
        self._balancer = Balancer(folder / "balancer", journal)
        self._members: list[Member] = []
        self._endpoints = endpoints_server(version.definition.family, self._views, Protections())

    @asynccontextmanager
    async def running(self, portfolios: int) -> AsyncIterator[None]:
        """Run the servers during the block; the database has the portfolios."""
        async with self._endpoints, self._redis, self.postgres, self._balancer:
            await self._one_off("migrate")
            self.journal.event("database", f"inserts {portfolios:,} portfolios of 20 positions")
            await fill(
                self.postgres.url, portfolios, since=AroundTheClockCalendar().last_closed(datetime.now(UTC)).date
            )
            yield

    @asynccontextmanager
    async def task(self, memory: int) -> AsyncIterator[Member]:
        """Run a task during the block; yields it once it is healthy. `memory` is the API's limit in MiB."""
        containers = [
            each.model_copy(update={"memory": memory}) if each.name == API else each
            for each in self._version.definition.container_definitions
        ]
        definition = self._version.definition.model_copy(update={"container_definitions": containers})
        member = Member(
            f"task{memory}",
            replace(self._version, definition=definition),
            pods=self._pods,
            balancer=self._balancer,
            endpoints=self._endpoints,
            profile=PROFILE,
            folder=self._folder,
            journal=self.journal,
        )
        self._members.append(member)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._balancer.watch())
            living = group.create_task(member.run())
            try:
                await until(lambda: member.healthy, HEALTHY_WITHIN, "the task is healthy")
                yield member
            finally:
                member.stop(delay=0.0)
                await asyncio.wait([living])
                watching.cancel()

    async def query(self, text: str, *arguments: object) -> asyncpg.Record | None:
        """Return the first row of a query's result."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            return await connection.fetchrow(text, *arguments)
        finally:
            await connection.close()

    def _views(self, task_id: str) -> dict[str, ContainerView] | None:
        return next((member.views() for member in self._members if member.task_id == task_id), None)

    async def _one_off(self, *command: str) -> None:
        definition = self._version.definition.container(API)
        async with self._pods.pod(f"once-{command[0]}") as pod, task_group("once", None) as group:
            code, text = await run_once(
                definition,
                command,
                image=self._version.images[API],
                pod=pod,
                group=group,
                environment=container_environment(definition, PROFILE, {}),
                folder=self._folder,
            )
        if code != 0:
            last = (text.strip().splitlines() or [""])[-1]
            raise RehearsalError(f"`python -m service {command[0]}` exited with {code}: {last}")


async def metrics(member: Member) -> dict[str, float]:
    """Return the metrics of the task's API that have no labels; empty if the API does not answer."""
    if member.pod is None:
        raise RehearsalError(f"{member.label} has ended")
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
            session.get(f"http://{member.pod.address}:9101/metrics") as answer,
        ):
            text = await answer.text()
    except (aiohttp.ClientError, OSError, TimeoutError):
        return {}
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name: sample.value for sample in samples if not sample.labels}
