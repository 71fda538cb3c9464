"""ECS's endpoints inside a task: the metadata endpoint, and the agent's task protection."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from aiohttp import web

from ops.local.metadata import ContainerView, MetadataServer, task_arn
from ops.rehearse.network import LINK_LOCAL

PORT = 80
MINUTES = 120
"""Default duration of a protection, in minutes."""


class Protections:
    """The tasks that have requested protection from deploys and scale-ins."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def protected(self, task_id: str) -> bool:
        """Return true if the scheduler must not stop the task."""
        return self._until.get(task_id, 0.0) > time.time()

    async def get(self, request: web.Request) -> web.Response:
        """`GET .../task-protection/v1/state`."""
        return self._answer(request.match_info["task_id"])

    async def put(self, request: web.Request) -> web.Response:
        """`PUT .../task-protection/v1/state`."""
        task_id, wish = request.match_info["task_id"], await request.json()
        if wish["ProtectionEnabled"]:
            self._until[task_id] = time.time() + 60 * wish.get("ExpiresInMinutes", MINUTES)
        else:
            self._until.pop(task_id, None)
        return self._answer(task_id)

    def _answer(self, task_id: str) -> web.Response:
        protection: dict[str, object] = {"ProtectionEnabled": self.protected(task_id), "TaskArn": task_arn(task_id)}
        if self.protected(task_id):
            protection["ExpirationDate"] = datetime.fromtimestamp(self._until[task_id], UTC).isoformat()
        return web.json_response({"protection": protection})


def endpoints_server(
    family: str, views: Callable[[str], Mapping[str, ContainerView] | None], protections: Protections
) -> MetadataServer:
    """Return the server of both endpoints, at ECS's own address."""
    path = "/api/{task_id}/task-protection/v1/state"
    routes = [web.get(path, protections.get), web.put(path, protections.put)]
    return MetadataServer(family, views, host=LINK_LOCAL, port=PORT, routes=routes)


def agent_uri(task_id: str) -> str:
    """`ECS_AGENT_URI` of a task's containers."""
    return f"http://{LINK_LOCAL}/api/{task_id}"
