"""Runs one container of a task as a process on this machine: starts, probes, stops, and never leaves it behind."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from ops.local.definition import ContainerDefinition, HealthCheck
from ops.local.processes import Process, running

TAIL = 300
"""Bytes of a container's output that are kept to report its last line."""


class Journal(Protocol):
    """Receives the events and the output of tasks and containers."""

    def event(self, who: str, text: str) -> None:
        """Report an event that matters to the user."""

    def output(self, who: str, chunk: bytes) -> None:
        """Report output of a container."""


@dataclass(frozen=True)
class Pace:
    """Times that are shorter on one machine than on ECS, in seconds.

    Attributes:
        start_probe: time between two health checks before the first success; ECS: `interval`, at least 5.
        restart_attempt_period: upper limit of `restartAttemptPeriod`; ECS: at least 60.
    """

    start_probe: float = 0.25
    restart_attempt_period: float = 5.0


class Container:
    """One container: its process, its health and its end.

    Events: `started` after the first start; `healthy` from the first passed health check until the container is
    unhealthy or exits; `over` (set by the task) when the container has exited and will not restart. Set
    `stop_requested` to send SIGTERM, then SIGKILL after `stopTimeout`.
    """

    def __init__(
        self,
        definition: ContainerDefinition,
        label: str,
        *,
        environment: Mapping[str, str],
        folder: Path,
        journal: Journal,
        pace: Pace,
        on_unhealthy: Callable[[], None],
    ) -> None:
        self.definition = definition
        self.label = label
        self.environment = environment
        self.folder = folder
        self.started = asyncio.Event()
        self.healthy = asyncio.Event()
        self.over = asyncio.Event()
        self.stop_requested = asyncio.Event()
        self.exit_code: int | None = None
        self.started_at: datetime | None = None
        self.uptime = 0.0
        self._process: Process | None = None
        self._tail = b""
        self._journal = journal
        self._pace = pace
        self._on_unhealthy = on_unhealthy

    async def run(self) -> int:
        """Run the process to its end, with its health checks.

        Returns:
            The exit code as ECS shows it: 128 + the signal if the process was killed.

        Raises:
            OSError: the command cannot be started.
        """
        began = time.monotonic()
        try:
            async with self._main(self._heard) as process, asyncio.TaskGroup() as group:
                if self.exit_code is not None:
                    self._journal.event(self.label, f"runs again: pid {process.pid}")
                self._process, self.exit_code, self.started_at = process, None, datetime.now(UTC)
                self.started.set()
                beside = [group.create_task(self._stop_when_asked(process))]
                if self.definition.health_check is not None:
                    beside.append(group.create_task(self._watch_health(self.definition.health_check)))
                self.exit_code = await process.wait()
                for task in beside:
                    task.cancel()
        finally:
            self.uptime = time.monotonic() - began
            self.healthy.clear()
            self._process = None
        return self.exit_code

    @property
    def pid(self) -> int | None:
        """The id of the process; None while no process runs."""
        return None if self._process is None else self._process.pid

    @property
    def last_line(self) -> str:
        """The last line of output, cut to the kept bytes; empty before the first line."""
        lines = self._tail.decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def kill(self) -> None:
        """Send SIGKILL to the container's processes."""
        if self._process is not None:
            self._process.kill()

    def _main(self, output: Callable[[bytes], None]) -> AbstractAsyncContextManager[Process]:
        """Run the container's main process while the block runs."""
        return self._beside(self.definition.argv, output)

    def _beside(self, argv: list[str], output: Callable[[bytes], None]) -> AbstractAsyncContextManager[Process]:
        """Run another process in the container, such as a health check."""
        return running(argv, environment=self.environment, folder=self.folder, output=output)

    def _heard(self, chunk: bytes) -> None:
        self._tail = (self._tail + chunk)[-TAIL:]
        self._journal.output(self.label, chunk)

    async def _stop_when_asked(self, process: Process) -> None:
        await self.stop_requested.wait()
        process.terminate()
        await asyncio.sleep(self.definition.stop_timeout)
        self._journal.event(
            self.label, f"still runs {self.definition.stop_timeout} s after SIGTERM (stopTimeout): SIGKILL"
        )
        process.kill()

    async def _watch_health(self, check: HealthCheck) -> None:
        """Probe until the container is unhealthy, then report it."""
        give_up = time.monotonic() + check.start_period + check.retries * check.interval
        complaint = None
        while not self.healthy.is_set() and time.monotonic() < give_up:
            await asyncio.sleep(self._pace.start_probe)
            complaint = await self._probe(check)
            if complaint is None:
                self.healthy.set()
        failures = 0
        while self.healthy.is_set():
            await asyncio.sleep(check.interval)
            complaint = await self._probe(check)
            failures = 0 if complaint is None else failures + 1
            if failures == check.retries:
                self.healthy.clear()
        self._journal.event(self.label, f"is UNHEALTHY: {complaint}")
        self._on_unhealthy()

    async def _probe(self, check: HealthCheck) -> str | None:
        """Run the health check once; returns None if it passes, else the reason."""
        said: list[bytes] = []
        try:
            async with asyncio.timeout(check.timeout), self._beside(check.argv, said.append) as process:
                code = await process.wait()
        except TimeoutError:
            return f"the health check took longer than {check.timeout} s"
        except OSError as error:
            return f"the health check cannot be started: {error.strerror}"
        last = b"".join(said).decode(errors="replace").strip().splitlines()[-1:]
        return None if code == 0 else last[0] if last else f"the health check exited with {code}"


async def first_of(*events: asyncio.Event, timeout: float | None = None) -> None:
    """Return once one of the events is set, or after `timeout` seconds."""
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(event.wait()) for event in events]
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
