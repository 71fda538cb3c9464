"""The decisions of ECS's service scheduler as pure rules: the tasks to start, and the tasks to stop.

A rolling deploy keeps at least 100 % and at most 200 % of the desired count running: a new task is healthy before an
old one is stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MOST = 2
"""Maximum number of running tasks, as a multiple of the desired count: ECS's `maximumPercent` of 200."""

BREAKER = 3
"""Number of tasks that stop before they are healthy, after which the circuit breaker rolls the deployment back."""


@dataclass(frozen=True)
class Standing:
    """One task that is not being stopped.

    Attributes:
        current: the task runs the version that is being deployed.
        healthy: its containers and its target are healthy.
        failing: the task was healthy and no longer is.
        protected: the task has requested protection.
    """

    current: bool
    healthy: bool
    failing: bool = False
    protected: bool = False


@dataclass(frozen=True)
class Plan:
    """The next step: the number of tasks to start, and the tasks to stop, as indexes of the standings."""

    start: int
    stop: tuple[int, ...]


def plan(desired: int, tasks: Sequence[Standing]) -> Plan:
    """The next step towards `desired` healthy tasks of the current version."""
    wanted = sum(task.current and not task.failing for task in tasks)
    start = max(0, min(desired - wanted, MOST * desired - len(tasks)))
    spare = sum(task.healthy for task in tasks) - desired
    surplus = wanted - desired
    stop = []
    for index in sorted(range(len(tasks)), key=lambda index: _stops_first(tasks[index])):
        task = tasks[index]
        if task.protected and desired > 0:
            continue
        if task.healthy and spare <= 0:
            continue
        if task.failing and spare < 0:
            continue  # it may become healthy before its replacement
        if task.current and not task.failing:
            if surplus <= 0:
                continue
            surplus -= 1
        spare -= task.healthy
        stop.append(index)
    return Plan(start, tuple(stop))


def _stops_first(task: Standing) -> tuple[bool, bool]:
    """Sort key: other versions before the current version, unhealthy tasks before healthy ones."""
    return task.current, task.healthy
