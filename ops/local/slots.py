"""The part of ECS's service scheduler that replaces stopped tasks: one slot for each task of the desired count."""

import asyncio
from collections.abc import Callable

from ops.local.console import Console
from ops.local.containers import first_of
from ops.local.tasks import Task

FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
"""Seconds between the end of a task and the next start; each task that stops before it is healthy doubles the delay."""


class Slot:
    """Keeps one task running.

    Args:
        label: the label of its tasks, such as `task1`.
        new_task: creates the next task.
        console: prints the events.
    """

    def __init__(self, label: str, new_task: Callable[[str], Task], console: Console) -> None:
        self.label = label
        self.steady = asyncio.Event()
        self.task = new_task(label)
        self._new_task = new_task
        self._console = console

    async def keep(self, stopping: asyncio.Event) -> None:
        """Run tasks until `stopping` is set and the last one has stopped in order."""
        delay = FIRST_DELAY
        while not stopping.is_set():
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(self._stop(stopping)), group.create_task(self._report_steady())]
                await self.task.run()
                for task in beside:
                    task.cancel()
            if stopping.is_set():
                return
            if self.task.steady.is_set():
                delay, logs = FIRST_DELAY, ""
            else:
                delay, logs = (
                    min(delay * 2, LONGEST_DELAY),
                    f" (the old one was never healthy; its logs: {self._console.log_path(f'{self.label}/*')})",
                )
            self._console.event(self.label, f"has stopped; as on ECS, a new task starts in {delay:g} s{logs}")
            await first_of(stopping, timeout=delay)
            if not stopping.is_set():
                self.task = self._new_task(self.label)
                self._console.event(self.label, f"starts again as task {self.task.task_id}")

    async def _stop(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self.task.stop("the run ends")

    async def _report_steady(self) -> None:
        await self.task.steady.wait()
        if self.steady.is_set():
            pids = ", ".join(f"{name} pid {pid}" for name, pid in self.task.pids.items())
            self._console.event(self.label, f"is healthy: {pids}")
        self.steady.set()
