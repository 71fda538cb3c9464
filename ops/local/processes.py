"""Child processes that end with the runner; on Linux even if the runner is killed.

Each process has its own session, and a pipe for its output. A process that a child starts in another session outlives
the child; see `ops.local.orphans`.
"""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from ops.local import orphans

LAST_WORDS = 1.0
"""Seconds for which the output of an exited process is still read."""


class Process:
    """A running process and the processes of its process group. `running` creates it."""

    def __init__(self, process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
        self._process = process
        self._reading = reading

    @property
    def pid(self) -> int:
        """The id of the process and of its process group."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait for the end of the process and of its output; returns the exit code as in a shell: 128 + signal."""
        code = await self._process.wait()
        self.kill()  # as in a container, the remaining processes end too
        await asyncio.wait([self._reading], timeout=LAST_WORDS)
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """Send SIGTERM to the process itself, as to the first process of a container."""
        # `terminate` of asyncio polls, and can reap the process before the event loop does, which loses its exit code.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the process and to all processes of its process group."""
        # The kernel does not reuse the group's number while a member of it lives, nor soon after the last one ends.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


@asynccontextmanager
async def running(
    argv: Sequence[str], *, environment: Mapping[str, str], folder: Path, output: Callable[[bytes], None]
) -> AsyncIterator[Process]:
    """Run a program while the block runs; at the end of the block, kill it if it still runs, and await it.

    Args:
        argv: the command line.
        environment: the whole environment.
        folder: the working folder.
        output: called with each chunk of both streams.

    Raises:
        OSError: the program cannot be started.
    """
    read_end, write_end = os.pipe()
    try:
        with orphans.starting():
            child = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                cwd=folder,
                env=dict(environment),
                start_new_session=True,  # Ctrl-C in a terminal is for the runner alone
                preexec_fn=die_with_us(signal.SIGKILL),
            )
            orphans.ours.add(child)
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(_read(read_end, output))
        process = Process(child, reading)
        try:
            yield process
        finally:
            process.kill()
            await child.wait()
            reading.cancel()


async def _read(read_end: int, output: Callable[[bytes], None]) -> None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", 0)
    )
    try:
        while chunk := await reader.read(65536):
            output(chunk)
    finally:
        transport.close()


def die_with_us(number: signal.Signals) -> Callable[[], None] | None:
    """Return a hook for `preexec_fn`: the child gets this signal when the thread that started it dies.

    Start such a child from the main thread, so that it lives as long as the process.
    """
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    pr_set_pdeathsig, parent = 1, os.getpid()

    def before_exec() -> None:
        libc.prctl(pr_set_pdeathsig, number)
        if os.getppid() != parent:  # the parent died before the call above
            os._exit(1)

    return before_exec
