"""One ECS task on this machine: its containers, started by `dependsOn`, stopped the other way round.

- A container starts once each of its dependencies has reached its condition, and not at all if one cannot.
- The exit of an essential container stops the task, and so does its ill health; `restartPolicy` comes first.
- A container is asked to stop only after all that declare `dependsOn` on it have stopped.
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
"""Is told (task label, container name) when a container's process has exited."""


class ContainerFactory(Protocol):
    """Makes one container of a task; `Container` itself makes a process of this machine."""

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
        """A container that has not been started."""


class Task:
    """One task; `run` it once.

    Args:
        definition: what to run.
        label: its name on the screen, `task1`.
        task_id: its ECS task id.
        environments: each container's whole environment, by container name.
        folder: the working folder of its containers.
        journal: is told what happens.
        pace: where to be quicker than ECS.
        exited: is told of each container's exit before anything follows from it.
        make: makes the containers.
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
        self.steady = asyncio.Event()  # every essential container has started and is healthy, if it can be
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
        """Run the containers until all have ended; returns why the task stopped.

        A cancelled run kills them; `stop` is the polite way.
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
        """Begin to stop, in order; the first reason given is kept."""
        if not self.stopping.is_set():
            self.reason = reason
            self.stopping.set()

    def kill(self) -> None:
        """SIGKILL to every container; the polite stop, if one is under way, then ends at once."""
        self.stop("killed")
        for container in self.containers.values():
            container.kill()

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each container that runs."""
        return {name: container.pid for name, container in self.containers.items() if container.pid is not None}

    async def _live(self, container: Container) -> None:
        """One container's life, from waiting for its dependencies to its end."""
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
                why = f", saying {container.last_line!r}" if 0 < code < 128 and container.last_line else ""
                self._end(container, f"exited with {describe(code)}{why}{why_not}")
                return
            again = "restartPolicy: started again in this task"
            self._journal.event(
                container.label, f"exited with {describe(code)} after {container.uptime:.0f} s; {again}"
            )

    def _no_restart(self, container: Container, code: int) -> str | None:
        """None if `restartPolicy` starts the container again, else why it does not."""
        policy = container.definition.restart_policy
        if policy is None or not policy.enabled:
            return ""
        if code in policy.ignored_exit_codes:
            return ", which restartPolicy ignores"
        period = min(policy.restart_attempt_period, self._pace.restart_attempt_period)
        if container.uptime < period:
            on_ecs = policy.restart_attempt_period
            return f" after {container.uptime:.1f} s; restartPolicy wants {period:g} s (on ECS {on_ecs} s)"
        return None

    def _end(self, container: Container, what: str) -> None:
        if container.definition.essential:
            self._journal.event(container.label, f"{what}; it is essential: {self.label} stops")
            self.stop(f"essential container {container.definition.name} {what}")
        else:
            self._journal.event(container.label, what)

    def _unhealthy(self, container: ContainerDefinition) -> Callable[[], None]:
        def told() -> None:
            if container.essential:
                self.stop(f"essential container {container.name} is unhealthy")

        return told

    async def _dependencies_met(self, container: Container) -> bool:
        """Wait for `dependsOn`; False when the container must not start any more."""
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
    """An exit code in words: `137 (SIGKILL)`."""
    try:
        return f"{code} ({signal.Signals(code - 128).name})" if code > 128 else str(code)
    except ValueError:
        return str(code)


def _met(target: Container, dependency: Dependency) -> bool | None:
    """Whether the condition has been reached; None if it never will be."""
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
