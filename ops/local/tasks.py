"""One ECS task on this machine: starts its containers by `dependsOn`, and stops them in reverse order.

- A container starts once each dependency has reached its condition. If a dependency can no longer reach it, the task
  stops.
- The task stops if an essential container is unhealthy, or exits and `restartPolicy` does not restart it.
- A container gets its stop signal after all containers that declare `dependsOn` on it have stopped.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from ops.local.containers import Container, Journal, Pace, first_of
from ops.local.definition import ContainerDefinition, Dependency, TaskDefinition

Watcher = Callable[[str, str], None]
"""Callback with the task's label and the container's name; called when a container's process has exited."""


class ContainerFactory(Protocol):
    """Creates one container of a task; `Container` runs it as a process of this machine."""

    def __call__(
        self,
        definition: ContainerDefinition,
        label: str,
        *,
        environment: Mapping[str, str],
        folder: Path,
        journal: Journal,
        pace: Pace,
        on_unhealthy: Callable[[], None],
    ) -> Container:
        """Return a container that has not started."""


class Task:
    """One task; call `run` once.

    Args:
        definition: the task definition.
        label: its name on the screen, `task1`.
        task_id: its ECS task id.
        environments: each container's whole environment, by container name.
        folder: the working folder of its containers.
        journal: receives the events.
        pace: the times that are shorter than on ECS.
        exited: called at each exit of a container, before the task reacts to it.
        make: creates the containers.
    """

    def __init__(
        self,
        definition: TaskDefinition,
        label: str,
        task_id: str,
        *,
        environments: Mapping[str, Mapping[str, str]],
        folder: Path,
        journal: Journal,
        pace: Pace | None = None,
        exited: Watcher | None = None,
        make: ContainerFactory = Container,
    ) -> None:
        self.definition = definition
        self.label = label
        self.task_id = task_id
        self.steady = asyncio.Event()  # each essential container has started and, if it has a health check, is healthy
        self.stopping = asyncio.Event()
        self.reason = ""
        self._journal = journal
        self._pace = pace or Pace()
        self._exited = exited
        self.containers = {
            container.name: make(
                container,
                f"{label}/{container.name}",
                environment=environments[container.name],
                folder=folder,
                journal=journal,
                pace=self._pace,
                on_unhealthy=self._unhealthy(container),
            )
            for container in definition.container_definitions
        }

    async def run(self) -> str:
        """Run the containers until all have ended; returns the reason for the task's stop.

        Cancellation kills the containers; `stop` stops them in order.
        """
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch_steady())
                lives = [group.create_task(self._live(container)) for container in self.containers.values()]
                await asyncio.wait(lives)
                watch.cancel()
        finally:
            self.kill()
        return self.reason or "every container has exited"

    def stop(self, reason: str) -> None:
        """Begin to stop the containers in order; the first reason is kept."""
        if not self.stopping.is_set():
            self.reason = reason
            self.stopping.set()

    def kill(self) -> None:
        """Send SIGKILL to every container; a stop that is under way then ends at once."""
        self.stop("killed")
        for container in self.containers.values():
            container.kill()

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each running container."""
        return {name: container.pid for name, container in self.containers.items() if container.pid is not None}

    async def _live(self, container: Container) -> None:
        """Run one container, from the wait for its dependencies to its end."""
        try:
            if await self._dependencies_met(container):
                async with asyncio.TaskGroup() as group:
                    stopper = group.create_task(self._ask_to_stop(container))
                    await self._run_again_and_again(container)
                    stopper.cancel()
        finally:
            container.over.set()

    async def _run_again_and_again(self, container: Container) -> None:
        while True:
            try:
                code = await container.run()
            except OSError as error:
                self._end(container, f"cannot be started: {container.definition.argv[0]}: {error.strerror}")
                return
            if self._exited is not None:
                self._exited(self.label, container.definition.name)
            if self.stopping.is_set():
                how = "" if code == 0 else f" with {describe(code)}"
                self._journal.event(container.label, f"stopped{how}")
                return
            why_not = self._no_restart(container, code)
            if why_not is not None:
                why = f", last line {container.last_line!r}" if 0 < code < 128 and container.last_line else ""
                self._end(container, f"exited with {describe(code)}{why}{why_not}")
                return
            again = "restartPolicy: restarted in this task"
            self._journal.event(
                container.label, f"exited with {describe(code)} after {container.uptime:.0f} s; {again}"
            )

    def _no_restart(self, container: Container, code: int) -> str | None:
        """Return None if `restartPolicy` restarts the container, else the reason why not."""
        policy = container.definition.restart_policy
        if policy is None or not policy.enabled:
            return ""
        if code in policy.ignored_exit_codes:
            return "; restartPolicy does not restart it after this status"
        period = min(policy.restart_attempt_period, self._pace.restart_attempt_period)
        if container.uptime < period:
            on_ecs = policy.restart_attempt_period
            return f" after {container.uptime:.1f} s; restartPolicy needs {period:g} s (on ECS {on_ecs} s)"
        return None

    def _end(self, container: Container, what: str) -> None:
        if container.definition.essential:
            self._journal.event(container.label, f"{what}; it is essential: {self.label} stops")
            self.stop(f"essential container {container.definition.name} {what}")
        else:
            self._journal.event(container.label, what)

    def _unhealthy(self, container: ContainerDefinition) -> Callable[[], None]:
        def on_unhealthy() -> None:
            if container.essential:
                self.stop(f"essential container {container.name} is unhealthy")

        return on_unhealthy

    async def _dependencies_met(self, container: Container) -> bool:
        """Wait for `dependsOn`; returns False if the container must not start."""
        for dependency in container.definition.depends_on:
            target = self.containers[dependency.container_name]
            deadline = time.monotonic() + target.definition.start_timeout
            while not self.stopping.is_set() and not (met := _met(target, dependency)):
                if met is None or time.monotonic() > deadline:
                    late = "" if met is None else f" within {target.definition.start_timeout} s (startTimeout)"
                    self.stop(f"{target.definition.name} did not become {dependency.condition}{late}")
                    self._journal.event(container.label, f"does not start: {self.reason}")
                    break
                awaited = target.healthy if dependency.condition == "HEALTHY" else target.started
                if awaited.is_set():
                    awaited = target.over
                await first_of(awaited, target.over, self.stopping, timeout=deadline - time.monotonic())
        return not self.stopping.is_set()

    async def _ask_to_stop(self, container: Container) -> None:
        await self.stopping.wait()
        for name in self.definition.dependents(container.definition.name):
            await self.containers[name].over.wait()
        container.stop_requested.set()

    async def _watch_steady(self) -> None:
        for container in self.containers.values():
            if not container.definition.essential:
                continue
            await container.started.wait()
            if container.definition.health_check is not None:
                await container.healthy.wait()
        self.steady.set()


def describe(code: int) -> str:
    """Return an exit code with the name of its signal: `137 (SIGKILL)`."""
    try:
        return f"{code} ({signal.Signals(code - 128).name})" if code > 128 else str(code)
    except ValueError:
        return str(code)


def _met(target: Container, dependency: Dependency) -> bool | None:
    """Return true if the dependency has reached its condition, None if it no longer can."""
    over = target.over.is_set()
    match dependency.condition:
        case "START":
            return target.started.is_set() or (None if over else False)
        case "HEALTHY":
            return target.healthy.is_set() or (None if over else False)
        case "COMPLETE":
            return over
        case "SUCCESS":
            return (target.exit_code == 0 or None) if over else False
