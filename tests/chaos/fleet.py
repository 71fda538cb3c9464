"""The fleet: servers, and tasks from `task-definition.json` that are kept running as ECS's scheduler would.

The containers run as processes of this machine. The api container runs `tests.chaos.api`: the product's API, or a
client that only writes, both with a diary. Each sidecar reaches Redis through its task's own proxies.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import psutil

from ops.local.addresses import shifted
from ops.local.console import Console
from ops.local.definition import TaskDefinition, read
from ops.local.environment import container_environment
from ops.local.metadata import ContainerView, MetadataServer, new_task_id, view
from ops.local.programs import spelled_out
from ops.local.servers import PostgresServer
from ops.local.settings import PORT_STEP
from ops.local.slots import Slot
from ops.local.tasks import Task
from runtime.clock import elapsed
from service.commands.samples import load_samples
from service.database.migrations import migrate
from service.database.store import Store
from tests.chaos import database
from tests.chaos.cluster_nodes import ClusterNodes
from tests.chaos.diary import VARIABLE
from tests.chaos.observers import Observations
from tests.chaos.ports import free_offset, quiet_port
from tests.chaos.redis_nodes import RedisNodes
from tests.chaos.redis_pair import RedisPair
from tests.chaos.schedule import LEASES, Redis
from tests.chaos.sentinel_nodes import SentinelNodes

ROOT = Path(__file__).resolve().parents[2]
LOOK_EVERY = 0.05
_REDIS: dict[Redis, Callable[[Path, list[str]], RedisPair | RedisNodes]] = {
    Redis.SERVER: RedisPair,
    Redis.CLUSTER: ClusterNodes,
    Redis.SENTINELS: SentinelNodes,
}


class EcsLog(Console):
    """Writes to `ecs.log` what `make run` shows on the screen, and keeps the reports of unhealthy containers."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._story = (folder / "ecs.log").open("w")
        self.unhealthy: list[tuple[float, str, str]] = []
        super().__init__(self._story, folder, colours=False, closed=lambda: None)

    def event(self, who: str, text: str, *, tone: str = "event") -> None:
        if "UNHEALTHY" in text:
            self.unhealthy.append((elapsed(), who, text))
        super().event(who, text, tone=tone)

    def lines(self) -> dict[str, list[str]]:
        """Return the log lines of each container, by the name of the log."""
        return {
            path.stem: path.read_text(errors="replace").splitlines() for path in sorted(self.folder.glob("task*.log"))
        }

    def close(self) -> None:
        """Close the files."""
        super().close()
        self._story.close()


class Fleet:
    """The tasks and their servers; `running` starts them.

    Args:
        folder: for data, logs and diaries.
        tasks: the number of tasks.
        ttl: LEASE_TTL in seconds; the heartbeat, the grant and the call limit follow from it.
        services: the number of tasks that run the product's API; the others run the writer.
        fence: true if the database refuses stale writes.
        min_replicas: the number of replicas that must confirm a sidecar's write.
        other_version: another checkout of the project. The first tasks alternate between the two versions, and each
            replacement runs the version that its predecessor did not run: a constant rolling deploy in both directions.
        redis: the kind of Redis.
    """

    def __init__(
        self,
        folder: Path,
        tasks: int,
        ttl: float,
        services: int,
        *,
        fence: bool = True,
        min_replicas: int = 0,
        other_version: Path | None = None,
        redis: Redis = Redis.SERVER,
    ) -> None:
        self.labels = [f"task{number + 1}" for number in range(tasks)]
        self.writers = self.labels[services:]
        self.ttl = ttl
        self.call_limit = ttl / 15
        self.grant_ttl = min(5.0, ttl / 4)
        self.heartbeat = ttl / 3
        self.log = EcsLog(folder / "logs")
        self.seen = Observations(folder)
        self.redis: RedisPair | RedisNodes = _REDIS[redis](folder, self.labels)
        self.postgres = PostgresServer(
            folder / "postgres", port=quiet_port(), settings=("fsync=off", "max_connections=200")
        )
        self.slots: dict[str, Slot] = {}
        self.stopping = asyncio.Event()
        self._versions = [ROOT] if other_version is None else [ROOT, other_version]
        self._definitions = {version: spelled_out(read(version / "task-definition.json")) for version in self._versions}
        self._definition = self._definitions[ROOT]
        self._next_version = {label: number for number, label in enumerate(self.labels)}
        self._fence = () if fence else ("--without-fence",)
        self._confirmed = {"sidecar": {"MIN_REPLICAS": str(min_replicas)}}
        self._offset = free_offset(self._definition, tasks)
        self._metadata = MetadataServer(self._definition.family, self._views)
        self._caller = dict(os.environ) | {
            "LEASE_TTL": f"{ttl:g}",
            "HEARTBEAT_INTERVAL": f"{self.heartbeat:g}",
            "GRANT_TTL": f"{self.grant_ttl:g}",
            "LEASE_KEY": self.redis.lease_key,
            "TRACKER_INTERVAL": "0.5",
            "SHUTDOWN_TIMEOUT": "10",
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run servers and tasks during the block; at the end, stop all tasks in ECS's order, then the servers."""
        try:
            async with self.redis, self.postgres, self._metadata:
                await self._prepare()
                self.slots = {label: Slot(label, self._new_task, self.log) for label in self.labels}
                async with asyncio.TaskGroup() as group:
                    keeping = [group.create_task(slot.keep(self.stopping)) for slot in self.slots.values()]
                    looking = group.create_task(self._look())
                    try:
                        yield
                    finally:
                        self.stopping.set()
                        await asyncio.wait(keeping)
                        looking.cancel()
        finally:
            self.log.close()

    async def writes(self) -> list[database.Accepted]:
        """Return the writes that the database has accepted so far."""
        return await database.accepted(self.postgres.url)

    def steady(self) -> bool:
        """Return true if every container of every task runs and is healthy."""
        return all(
            slot.task.steady.is_set()
            and not slot.task.stopping.is_set()
            and all(container.healthy.is_set() for container in slot.task.containers.values())
            for slot in self.slots.values()
        )

    async def campaigning(self) -> bool:
        """Return true if each task leads or follows each lease: no client is silent, and no candidate is cut off."""
        states: list[str] = []
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
            for label in self.labels:
                try:
                    async with session.get(
                        f"http://{self._address(label, 'sidecar', 'CONTROL_BIND')}/status"
                    ) as answer:
                        status = await answer.json()
                except (aiohttp.ClientError, TimeoutError):
                    return False
                states += [status["leases"][name]["state"] for name in LEASES]
        return all(state in ("leading", "following") for state in states)

    def keys(self) -> dict[str, str]:
        """Return the Redis key of each lease."""
        return {name: self.redis.lease_key.replace("{name}", name) for name in LEASES}

    async def _prepare(self) -> None:
        url = self.postgres.url
        await migrate(url)
        async with await Store.connect(url, connections=1) as store:
            await load_samples(store)
        await database.watch(url)

    async def _look(self) -> None:
        while True:
            now = elapsed()
            self.seen.read()
            for label, slot in self.slots.items():
                for name, container in slot.task.containers.items():
                    self.seen.lived(label, name, container.pid, now)
            await asyncio.sleep(LOOK_EVERY)

    def _derived(self, label: str, version: Path) -> TaskDefinition:
        program = "writer" if label in self.writers else "service"
        entry_point = ["python", "-m", "tests.chaos.api", program, *self._fence]
        containers = [
            container.model_copy(update={"entry_point": entry_point, "command": []})
            if container.name == "api"
            else container
            for container in self._definitions[version].container_definitions
        ]
        return self._definitions[version].model_copy(update={"container_definitions": containers})

    def _new_task(self, label: str) -> Task:
        task_id = new_task_id()
        backends = {**self.redis.settings(label), "DATABASE_URL": self.postgres.url}
        version = self._versions[self._next_version[label] % len(self._versions)]
        self._next_version[label] += 1
        definition = self._derived(label, version)
        environments = {
            container.name: container_environment(
                container, shift=self._shift(label), caller=self._caller, backends=backends
            )
            | {
                "ECS_CONTAINER_METADATA_URI_V4": self._metadata.uri(task_id, container.name),
                VARIABLE: str(self.seen.diary(label)),
            }
            | self._confirmed.get(container.name, {})
            for container in definition.container_definitions
        }
        return Task(definition, label, task_id, environments=environments, folder=version, journal=self.log)

    def _shift(self, label: str) -> int:
        return self._offset + PORT_STEP * self.labels.index(label)

    def _address(self, label: str, container: str, variable: str) -> str:
        return shifted(self._definition.container(container), self._shift(label))[variable]

    def _views(self, task_id: str) -> dict[str, ContainerView] | None:
        for slot in self.slots.values():
            if slot.task.task_id == task_id:
                return {name: view(container) for name, container in slot.task.containers.items()}
        return None


def left_over() -> list[str]:
    """Return the child processes that still run."""
    found: list[str] = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # the child has just ended
            found.append(f"{child.name()} (pid {child.pid})")
    return found
