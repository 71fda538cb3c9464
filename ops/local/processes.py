"""Child processes that never outlive the runner: each in a session of its own, its output read through a pipe."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

LAST_WORDS = 1.0
"""For how long, in seconds, the output of a process that has exited is still read."""


class Process:
    """A running process with whatever it starts itself. `running` makes one."""

    def __init__(self, process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
        self._process = process
        self._reading = reading

    @property
    def pid(self) -> int:
        """Its id, and that of its process group."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait for its end, and for the last of its output; returns its exit code as a shell shows it: 128 + signal."""
        code = await self._process.wait()
        self.kill()  # what it left behind goes with it, as in a container
        await asyncio.wait([self._reading], timeout=LAST_WORDS)
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """SIGTERM to the process itself, as a container's first process gets it."""
        # Not by its own terminate, which polls: that may reap it before the event loop does, and lose its exit code.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the process and to all that it started."""
        # Its number stays taken while a member of the group lives, and is not given out again soon after.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


@asynccontextmanager
async def running(
    argv: Sequence[str], *, environment: Mapping[str, str], folder: Path, output: Callable[[bytes], None]
) -> AsyncIterator[Process]:
    """Run a program for as long as the block lasts; killed at its end if it still runs, and awaited.

    Args:
        argv: the command line.
        environment: the whole of it.
        folder: where it runs.
        output: is given what it writes to either stream.

    Raises:
        OSError: it cannot be started.
    """
    read_end, write_end = os.pipe()
    try:
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
    """What a child runs before its program, so that it gets this signal when the thread that started it dies.

    A thread other than the main one is therefore the wrong one to start a child from.
    """
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    pr_set_pdeathsig, parent = 1, os.getpid()

    def before_exec() -> None:
        libc.prctl(pr_set_pdeathsig, number)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)

    return before_exec
