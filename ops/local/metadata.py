"""The ECS task metadata endpoint, version 4: the part from which a task reads its own id."""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from ops.local.addresses import LOOPBACK
from ops.local.containers import Container

CLUSTER = "make-run"
REGION = "us-west-1"
ACCOUNT = "000000000000"

Document = dict[str, Any]


def new_task_id() -> str:
    """Return a task id in the form of ECS: 32 hexadecimal digits."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class ContainerView:
    """The endpoint's data about one container: its state in ECS's words, and the time of its last start."""

    image: str
    known_status: str
    health: str | None
    started_at: datetime | None


def view(container: Container) -> ContainerView:
    """Return the endpoint's data about a container."""
    health = "HEALTHY" if container.healthy.is_set() else "UNKNOWN"
    status = "RUNNING" if container.started.is_set() else "PENDING"
    return ContainerView(
        image=container.definition.image,
        known_status="STOPPED" if container.over.is_set() else status,
        health=None if container.definition.health_check is None else health,
        started_at=container.started_at,
    )


def container_document(task_id: str, family: str, name: str, view: ContainerView) -> Document:
    """The answer to `GET $ECS_CONTAINER_METADATA_URI_V4`."""
    document: Document = {
        "DockerId": f"{task_id}-{name}",
        "Name": name,
        "DockerName": name,
        "Image": view.image,
        "Labels": {
            "com.amazonaws.ecs.cluster": CLUSTER,
            "com.amazonaws.ecs.container-name": name,
            "com.amazonaws.ecs.task-arn": task_arn(task_id),
            "com.amazonaws.ecs.task-definition-family": family,
            "com.amazonaws.ecs.task-definition-version": "1",
        },
        "DesiredStatus": "RUNNING",
        "KnownStatus": view.known_status,
        "Type": "NORMAL",
        "ContainerARN": f"arn:aws:ecs:{REGION}:{ACCOUNT}:container/{CLUSTER}/{task_id}/{name}",
        "Networks": [{"NetworkMode": "awsvpc", "IPv4Addresses": [LOOPBACK]}],
    }
    if view.started_at is not None:
        document["StartedAt"] = view.started_at.isoformat()
    if view.health is not None:
        document["Health"] = {"status": view.health}
    return document


def task_document(task_id: str, family: str, containers: Mapping[str, ContainerView]) -> Document:
    """The answer to `GET $ECS_CONTAINER_METADATA_URI_V4/task`."""
    return {
        "Cluster": f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{CLUSTER}",
        "TaskARN": task_arn(task_id),
        "Family": family,
        "Revision": "1",
        "ServiceName": family,
        "DesiredStatus": "RUNNING",
        "KnownStatus": "RUNNING",
        "AvailabilityZone": f"{REGION}a",
        "LaunchType": "FARGATE",
        "Containers": [container_document(task_id, family, name, view) for name, view in containers.items()],
        "ClockDrift": {
            "ClockErrorBound": 0.5,
            "ReferenceTimestamp": datetime.now(UTC).isoformat(),
            "ClockSynchronizationStatus": "SYNCHRONIZED",
        },
    }


def task_arn(task_id: str) -> str:
    """The ARN of a task of this machine."""
    return f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{CLUSTER}/{task_id}"


class MetadataServer:
    """Serves `/v4/{task id}/{container}` and `.../task`; an async context manager.

    Args:
        family: family of the task definition.
        views: returns the containers of a task by name, given the task's id; None for an unknown task.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        routes: more routes of the same listener, such as the routes of the ECS agent.
    """

    def __init__(
        self,
        family: str,
        views: Callable[[str], Mapping[str, ContainerView] | None],
        *,
        host: str = LOOPBACK,
        port: int = 0,
        routes: Iterable[web.RouteDef] = (),
    ) -> None:
        self._family = family
        self._views = views
        self._host = host
        self._port = port
        app = web.Application()
        app.router.add_routes(routes)
        app.router.add_get("/v4/{task_id}/{container}", self._container)
        app.router.add_get("/v4/{task_id}/{container}/task", self._task)
        self._runner = web.AppRunner(app, access_log=None)

    def uri(self, task_id: str, container: str) -> str:
        """`ECS_CONTAINER_METADATA_URI_V4` of a container."""
        return f"http://{self._host}:{self._port}/v4/{task_id}/{container}"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _container(self, request: web.Request) -> web.Response:
        task_id, name, views = self._look_up(request)
        return web.json_response(container_document(task_id, self._family, name, views[name]))

    async def _task(self, request: web.Request) -> web.Response:
        task_id, _, views = self._look_up(request)
        return web.json_response(task_document(task_id, self._family, views))

    def _look_up(self, request: web.Request) -> tuple[str, str, Mapping[str, ContainerView]]:
        task_id, name = request.match_info["task_id"], request.match_info["container"]
        views = self._views(task_id)
        if views is None or name not in views:
            raise web.HTTPNotFound(text=f"unable to get the metadata of {task_id}/{name}")
        return task_id, name, views
