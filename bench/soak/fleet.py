"""The fleet of a soak: a real Redis, a real Postgres, and whole tasks from `task-definition.json`."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp

from ops.local.addresses import shifted
from ops.local.console import Console
from ops.local.definition import TaskDefinition, read
from ops.local.environment import container_environment
from ops.local.metadata import ContainerView, MetadataServer, new_task_id, view
from ops.local.programs import API, SIDECAR, spelled_out
from ops.local.servers import PostgresServer, RedisServer
from ops.local.settings import PORT_STEP
from ops.local.slots import Slot
from ops.local.tasks import Task
from runtime.clock import elapsed
from service.commands.samples import SAMPLES, load_samples
from service.database.migrations import migrate
from service.database.store import Store
from sidecar.settings import Settings
from sidecar.settings import read as read_sidecar_settings
from tests.chaos.ports import free_offset, quiet_port

ROOT = Path(__file__).resolve().parents[2]
LABELS = "task1", "task2", "task3"
RESTARTED = "task3"
"""Name of the task that restarts once a minute."""
STEADY_WITHIN = 180.0
"""Timeout for a task to become healthy, in seconds; a busy machine needs many times as long as a quiet one."""

SETTINGS = {
    "LEASE_TTL": "1.2",
    "HEARTBEAT_INTERVAL": "0.05",
    "GRANT_TTL": "0.6",
    "REDIS_TIMEOUT": "0.4",
    "TRACKER_INTERVAL": "0.5",
    "SHUTDOWN_TIMEOUT": "10",
}
"""Settings that compress the time: a renewal every 50 ms, not 10 s, and a leader's requests held for 0.15 s, not 1.5 s.

A sidecar renews no earlier than a thirtieth of LEASE_TTL after the last reply, so 50 ms needs a short LEASE_TTL.
"""


class Fleet:
    """The tasks and their servers; `running` starts them.

    Args:
        folder: for data and logs.
        plants: the faults of the sidecars (`bench.soak.planted`).
    """

    def __init__(self, folder: Path, plants: Sequence[str] = ()) -> None:
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True)
        self.redis = RedisServer(folder / "redis", port=quiet_port())
        self.postgres = PostgresServer(folder / "postgres", port=quiet_port(), settings=("fsync=off",))
        self.slots: dict[str, Slot] = {}
        self._definition = _with_plants(spelled_out(read(ROOT / "task-definition.json")), plants)
        self._offset = free_offset(self._definition, len(LABELS))
        self._metadata = MetadataServer(self._definition.family, self._views)
        self._stopping = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the servers and the tasks; at the end, stop the tasks as ECS does, then the servers."""
        with (self.logs / "ecs.log").open("w", encoding="utf-8") as story:
            console = Console(story, self.logs, colours=False, closed=lambda: None)
            try:
                await self.redis.start_beside()
                await self.postgres.start_beside()
                await self._prepare()
                async with self._metadata, asyncio.TaskGroup() as group:
                    self._console = console
                    self.slots = {label: Slot(label, self._new_task, console) for label in LABELS}
                    for slot in self.slots.values():
                        group.create_task(slot.keep(self._stopping))
                    try:
                        yield
                    finally:
                        self._stopping.set()
            finally:
                console.close()
                self.redis.stop()
                self.postgres.stop()

    async def steady(self, label: str) -> bool:
        """Wait until every container of the task is healthy, and the API has connected to Postgres.

        Returns:
            False after the timeout.
        """
        deadline = elapsed() + STEADY_WITHIN
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=STEADY_WITHIN)) as session:
            while not (self.is_steady(label) and await self._connected(session, label)):
                if elapsed() > deadline:
                    return False
                await asyncio.sleep(0.05)
        return True

    async def _connected(self, session: aiohttp.ClientSession, label: str) -> bool:
        """Return true if requests reach the database.

        An API is healthy without a database, so that an outage of the database does not restart the API.
        """
        url = f"http://{self.address(label, API, 'API_BIND')}/portfolios/{next(iter(SAMPLES))}/stream"
        try:
            async with session.get(url) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def is_steady(self, label: str) -> bool:
        """Return true if every container of the task runs and is healthy."""
        task = self.slots[label].task
        return task.steady.is_set() and not task.stopping.is_set()

    def address(self, label: str, container: str, variable: str) -> str:
        """Return the host and port of a listener."""
        return shifted(self._definition.container(container), self._shift(label))[variable]

    def sidecar_settings(self) -> Settings:
        """Return the settings for an operator's commands."""
        return read_sidecar_settings(SETTINGS | self._redis_address)

    def pids(self) -> list[int]:
        """Return the running processes of the tasks and of Redis."""
        servers = [] if self.redis.process is None else [self.redis.process.pid]
        return servers + [pid for slot in self.slots.values() for pid in slot.task.pids.values()]

    def log_files(self) -> list[Path]:
        """Return the logs of the containers."""
        return sorted(self.logs.glob("task*.log"))

    @property
    def _redis_address(self) -> dict[str, str]:
        return {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(self.redis.port)}

    async def _prepare(self) -> None:
        await migrate(self.postgres.url)
        async with await Store.connect(self.postgres.url, connections=1) as store:
            await load_samples(store)

    def _new_task(self, label: str) -> Task:
        task_id = new_task_id()
        caller = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "DATABASE_"))}
        backends = {**self._redis_address, "DATABASE_URL": self.postgres.url}
        environments = {
            container.name: container_environment(
                container, shift=self._shift(label), caller=caller | SETTINGS, backends=backends
            )
            | {"ECS_CONTAINER_METADATA_URI_V4": self._metadata.uri(task_id, container.name), "LOG_FORMAT": "json"}
            for container in self._definition.container_definitions
        }
        return Task(self._definition, label, task_id, environments=environments, folder=ROOT, journal=self._console)

    def _shift(self, label: str) -> int:
        return self._offset + PORT_STEP * LABELS.index(label)

    def _views(self, task_id: str) -> dict[str, ContainerView] | None:
        for slot in self.slots.values():
            if slot.task.task_id == task_id:
                return {name: view(container) for name, container in slot.task.containers.items()}
        return None


def _with_plants(definition: TaskDefinition, plants: Sequence[str]) -> TaskDefinition:
    if not plants:
        return definition
    entry_point = ["python", "-m", "bench.soak.planted", ",".join(plants)]
    containers = [
        container.model_copy(update={"entry_point": entry_point}) if container.name == SIDECAR else container
        for container in definition.container_definitions
    ]
    return definition.model_copy(update={"container_definitions": containers})
