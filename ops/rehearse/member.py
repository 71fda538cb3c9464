"""One task of the service: its pod, its containers, and its place in the load balancer."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ops.local.containers import Journal, first_of
from ops.local.definition import ContainerDefinition
from ops.local.metadata import ContainerView, MetadataServer, new_task_id, view
from ops.local.tasks import Task
from ops.rehearse.balancer import Balancer, Health, Target
from ops.rehearse.cgroups import task_group
from ops.rehearse.endpoints import agent_uri
from ops.rehearse.environment import container_environment
from ops.rehearse.network import Pod, Pods
from ops.rehearse.podman import PodmanContainer
from ops.rehearse.profile import Profile
from ops.rehearse.scheduler import Standing
from ops.rehearse.versions import Version

API = "api"
"""The container that the load balancer reaches."""


class Member:
    """A task from its start to its end. Call `run` once.

    Attributes:
        pod: network of the task; None before its start and after its end.
        was_healthy: whether the task has ever been healthy.
        began, ended: times in seconds since the epoch.
    """

    def __init__(
        self,
        label: str,
        version: Version,
        *,
        pods: Pods,
        balancer: Balancer,
        endpoints: MetadataServer,
        profile: Profile,
        folder: Path,
        journal: Journal,
    ) -> None:
        self.label = label
        self.version = version
        self.task_id = new_task_id()
        self.pod: Pod | None = None
        self.was_healthy = False
        self.leaving = False
        self.began = time.time()
        self.healthy_at: float | None = None
        self.leaving_at: float | None = None
        self.ended: float | None = None
        self._pods = pods
        self._balancer = balancer
        self._endpoints = endpoints
        self._profile = profile
        self._folder = folder
        self._journal = journal
        self._task: Task | None = None
        self._target: Target | None = None
        self._stop = asyncio.Event()
        self._delay = 0.0

    async def run(self) -> None:
        """Run until the task has stopped and its resources are removed."""
        try:
            async with (
                self._pods.pod(self.label) as pod,
                task_group(self.label, self.version.definition.cpu_units) as group_name,
            ):
                self.pod = pod
                task = self._task = self._new_task(pod, group_name)
                async with asyncio.TaskGroup() as group:
                    beside = [group.create_task(self._register(task, pod)), group.create_task(self._leave(task))]
                    reason = await task.run()
                    for each in beside:
                        each.cancel()
                self._journal.event(self.label, f"has stopped: {reason}")
        finally:
            self.pod = None
            self._note_leaving()
            self.ended = time.time()
            if self._target is not None:
                await self._balancer.remove(self._target)

    def stop(self, *, delay: float | None = None) -> None:
        """Deregister, wait for the deregistration delay, and stop as ECS does.

        Args:
            delay: deregistration delay in seconds, in place of the profile's.
        """
        if not self._stop.is_set():
            self._note_leaving()
            self._delay = self._profile.deregistration_delay if delay is None else delay
            self._stop.set()

    def kill(self) -> None:
        """Kill every container."""
        if self._task is not None:
            self._task.kill()

    def standing(self, current: Version, *, protected: bool) -> Standing:
        """The scheduler's view of the task."""
        healthy = self.healthy
        return Standing(
            current=self.version == current,
            healthy=healthy,
            failing=self.was_healthy and not healthy,
            protected=protected,
        )

    @property
    def healthy(self) -> bool:
        """Return true if the containers and the target are healthy."""
        well = (
            self._task is not None
            and self._task.steady.is_set()
            and not self._task.stopping.is_set()
            and self._target is not None
            and self._target.health is Health.HEALTHY
        )
        if well and not self.was_healthy:
            self.was_healthy, self.healthy_at = True, time.time()
            self._journal.event(self.label, f"is healthy, {self.healthy_at - self.began:.1f} s after its start")
        return well

    @property
    def complete(self) -> bool:
        """Return true if the task is healthy and each container, even a restarted one, passes its health check now."""
        if self._task is None or not self.healthy:
            return False
        checked = [each for each in self._task.containers.values() if each.definition.health_check is not None]
        return all(each.healthy.is_set() for each in checked)

    @property
    def told_to_stop(self) -> bool:
        """Return true if the scheduler has begun to stop the task."""
        return self._stop.is_set()

    @property
    def pids(self) -> Mapping[str, int]:
        """The process id of the first process of each running container."""
        return {} if self._task is None else self._task.pids

    def views(self) -> dict[str, ContainerView]:
        """The metadata endpoint's data about the containers."""
        return {} if self._task is None else {name: view(each) for name, each in self._task.containers.items()}

    async def _register(self, task: Task, pod: Pod) -> None:
        await task.containers[API].started.wait()
        if not self.leaving:
            self._target = await self._balancer.register(self.label, pod.address)

    async def _leave(self, task: Task) -> None:
        """Wait until the scheduler or the task itself begins the stop, then drain the target and stop the task."""
        await first_of(self._stop, task.stopping)
        self._note_leaving()
        if self._target is not None:
            await self._balancer.drain(self._target)
            if not task.stopping.is_set():
                await first_of(task.stopping, timeout=self._delay)
            await self._balancer.remove(self._target)
        task.stop("the scheduler stops it")

    def _note_leaving(self) -> None:
        self.leaving = True
        self.leaving_at = self.leaving_at or time.time()

    def _new_task(self, pod: Pod, group: str) -> Task:
        def make(definition: ContainerDefinition, label: str, **options: object) -> PodmanContainer:
            made = partial(PodmanContainer, image=self.version.images[definition.name], pod=pod, group=group)
            return made(definition, label, **options)  # type: ignore[arg-type]  # the options of ops.local.Task

        environments = {
            container.name: container_environment(
                container,
                self._profile,
                {
                    "ECS_CONTAINER_METADATA_URI_V4": self._endpoints.uri(self.task_id, container.name),
                    "ECS_AGENT_URI": agent_uri(self.task_id),
                },
            )
            for container in self.version.definition.container_definitions
        }
        return Task(
            self.version.definition,
            self.label,
            self.task_id,
            environments=environments,
            folder=self._folder,
            journal=self._journal,
            pace=self._profile.pace,
            make=make,
        )
