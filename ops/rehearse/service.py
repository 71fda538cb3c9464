"""The ECS service: keeps the desired number of tasks of one version running, and deploys other versions."""

import asyncio
import time
from collections.abc import Callable

from ops.local.containers import Journal
from ops.local.metadata import ContainerView
from ops.rehearse.endpoints import Protections
from ops.rehearse.member import Member
from ops.rehearse.scheduler import BREAKER, plan
from ops.rehearse.versions import Version

LOOK_EVERY = 0.1
AFTER_A_FAILURE = 1.0
"""Seconds to wait before the next start, after a task that stopped before it was healthy."""


class Service:
    """Runs tasks as ECS's scheduler does.

    Attributes:
        members: every task of the rehearsal, including ended tasks.
        rolled_back: whether the circuit breaker has rolled back the last deployment.
    """

    def __init__(
        self, version: Version, new_member: Callable[[str, Version], Member], protections: Protections, journal: Journal
    ) -> None:
        self.desired = 0
        self.version = version
        self.members: list[Member] = []
        self.rolled_back = False
        self._before = version
        self._failures = 0
        self._start_again_at = 0.0
        self._new_member = new_member
        self._protections = protections
        self._journal = journal

    def scale(self, desired: int) -> None:
        """Change the desired count."""
        self._journal.event("service", f"desired count {self.desired} -> {desired}")
        self.desired = desired

    def deploy(self, version: Version) -> None:
        """Begin to replace every task by a task of this version."""
        self._journal.event("service", f"deploys version {version.name} in place of {self.version.name}")
        self._before, self.version = self.version, version
        self._failures, self.rolled_back = 0, False

    @property
    def running(self) -> list[Member]:
        """The tasks that have not ended and are not stopping."""
        return [member for member in self.members if not member.leaving]

    @property
    def reached(self) -> bool:
        """Return true if the desired count of the current version is healthy, and no other task runs."""
        healthy = [member for member in self.running if member.complete and member.version == self.version]
        return len(healthy) == self.desired == len(self.running)

    @property
    def steady(self) -> bool:
        """Return true if `reached` is true and every stopped task has ended."""
        return self.reached and all(member.ended is not None for member in self.members if member.leaving)

    def views(self, task_id: str) -> dict[str, ContainerView] | None:
        """The containers of a task, for the metadata endpoint."""
        return next((member.views() for member in self.members if member.task_id == task_id), None)

    async def keep(self) -> None:
        """Schedule until cancelled. Every task has ended on return."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._step(group)
                    await asyncio.sleep(LOOK_EVERY)
        finally:
            for member in self.members:
                member.kill()

    async def stop(self) -> None:
        """Stop every task in order, and return when all have ended."""
        self.scale(0)
        while not self.steady:  # noqa: ASYNC110 - the scheduler itself looks this often
            await asyncio.sleep(LOOK_EVERY)

    def _step(self, group: asyncio.TaskGroup) -> None:
        running = self.running
        standings = [
            member.standing(self.version, protected=self._protections.protected(member.task_id)) for member in running
        ]
        step = plan(self.desired, standings)
        for index in step.stop:
            running[index].stop()
        if time.monotonic() < self._start_again_at:
            return
        for _ in range(step.start):
            member = self._new_member(f"task{len(self.members) + 1}", self.version)
            self._journal.event(member.label, f"starts, version {self.version.name}")
            self.members.append(member)
            group.create_task(self._life(member))

    async def _life(self, member: Member) -> None:
        current = self.version
        try:
            await member.run()
        finally:
            if not member.was_healthy and not member.told_to_stop and member.version == self.version == current:
                self._failed()

    def _failed(self) -> None:
        """Count a task that stopped before it was healthy."""
        self._failures += 1
        self._start_again_at = time.monotonic() + AFTER_A_FAILURE
        if self._failures >= BREAKER and self._before != self.version:
            self._journal.event(
                "service", f"circuit breaker: {self._failures} tasks failed, back to {self._before.name}"
            )
            self.version, self.rolled_back, self._failures = self._before, True, 0
