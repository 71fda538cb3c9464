"""One container of a task as a process of this machine: started, probed, stopped, and never left behind."""

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ops.local.definition import ContainerDefinition, HealthCheck

LAST_WORDS = 1.0
"""For how long, in seconds, the output of a process that has exited is still read."""


class Journal(Protocol):
    """Where tasks and containers tell what happens to them."""

    def event(self, who: str, text: str) -> None:
        """Something happened that a user wants to know."""

    def output(self, who: str, chunk: bytes) -> None:
        """A container wrote something."""


@dataclass(frozen=True)
class Pace:
    """Where a run on one machine is quicker than ECS. Seconds.

    Attributes:
        start_probe: between two health checks until the first that passes; ECS: `interval`, at least 5.
        restart_attempt_period: what `restartAttemptPeriod` counts as, at most; ECS: at least 60.
    """

    start_probe: float = 0.25
    restart_attempt_period: float = 5.0


class Container:
    """One container: its process, its health, its end.

    Events: `started` once it has been started, `healthy` while its health check passes, `over` (set by its task) when
    it has exited and is not started again. Set `stop_requested` to stop it: SIGTERM, and SIGKILL after `stopTimeout`.
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
        self.pid: int | None = None
        self.uptime = 0.0
        self._journal = journal
        self._pace = pace
        self._on_unhealthy = on_unhealthy

    async def run(self) -> int:
        """Run the process to its end, with its health checks.

        Returns:
            The exit code as ECS shows it: 128 + the signal for one that was killed.

        Raises:
            OSError: the command cannot be started.
        """
        began = time.monotonic()
        output, end_of_process = os.pipe()
        try:
            process = await self._spawn(self.definition.argv, end_of_process)
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(end_of_process)
        self.pid, self.exit_code = process.pid, None
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read(output))
                beside = [group.create_task(self._stop_when_asked(process))]
                if self.definition.health_check is not None:
                    beside.append(group.create_task(self._watch_health(self.definition.health_check)))
                self.started.set()
                code = await process.wait()
                self.exit_code = code if code >= 0 else 128 - code
                self.uptime = time.monotonic() - began
                for task in beside:
                    task.cancel()
                _kill(process)  # what the process left behind goes with it, as in a container
                await asyncio.wait([reading], timeout=LAST_WORDS)
                reading.cancel()
        finally:
            _kill(process)
            self.healthy.clear()
            self.pid = None
        return self.exit_code

    def kill(self) -> None:
        """SIGKILL to the container's processes, now."""
        if self.pid is not None:
            _kill_group(self.pid)

    async def _spawn(self, argv: list[str], output: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=self.folder,
            env=dict(self.environment),
            start_new_session=True,  # Ctrl-C in a terminal is for the runner alone
            preexec_fn=_DIE_WITH_RUNNER,
        )

    async def _read(self, output: int) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output, "rb", 0)
        )
        try:
            while chunk := await reader.read(65536):
                self._journal.output(self.label, chunk)
        finally:
            transport.close()

    async def _stop_when_asked(self, process: asyncio.subprocess.Process) -> None:
        await self.stop_requested.wait()
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await asyncio.sleep(self.definition.stop_timeout)
        self._journal.event(
            self.label, f"still runs {self.definition.stop_timeout} s after SIGTERM (stopTimeout): SIGKILL"
        )
        _kill(process)

    async def _watch_health(self, check: HealthCheck) -> None:
        """Probe until the container is unhealthy, and say so then."""
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
        """Run the health check once; None when it passes, else what is wrong."""
        output, end_of_process = os.pipe()
        try:
            probe = await self._spawn(check.argv, end_of_process)
        except OSError as error:
            os.close(output)
            return f"the health check cannot be started: {error.strerror}"
        finally:
            os.close(end_of_process)
        said: list[str] = []
        try:
            async with asyncio.timeout(check.timeout):
                code = await probe.wait()
            os.set_blocking(output, False)
            with suppress(BlockingIOError):
                said = os.read(output, 4096).decode(errors="replace").strip().splitlines()
        except TimeoutError:
            return f"the health check took longer than {check.timeout} s"
        finally:
            _kill(probe)
            os.close(output)
        return None if code == 0 else said[-1] if said else f"the health check exited with {code}"


async def first_of(*events: asyncio.Event, timeout: float | None = None) -> None:
    """Return once one of the events is set, or after `timeout` seconds."""
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(event.wait()) for event in events]
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


def _kill(process: asyncio.subprocess.Process) -> None:
    _kill_group(process.pid)


def _kill_group(pid: int) -> None:
    # A group outlives its leader while a member lives; once empty, its number is not given out again at once.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _die_with_runner() -> Callable[[], None] | None:
    """What a child runs before its program: it is killed when the runner's main thread, its parent, dies in any way."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    pr_set_pdeathsig, runner = 1, os.getpid()

    def before_exec() -> None:
        libc.prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != runner:  # it died before the call above
            os._exit(1)

    return before_exec


_DIE_WITH_RUNNER = _die_with_runner()
