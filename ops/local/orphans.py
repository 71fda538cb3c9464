"""Orphans: processes of a run whose parent has ended. On Linux the runner becomes their parent.

The runner reaps the orphans, and at its end kills those that still run.

asyncio and `subprocess` reap the processes that the runner itself starts. If `reap` reaped one of them, its exit code
would be lost. So `reap` leaves out the processes in `ours`. A start that does not block the event loop runs in a
`starting` block, during which `reap` does nothing.
"""

import asyncio
import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol
from weakref import WeakSet

import psutil

REAP_EVERY = 1.0
"""Seconds between two rounds of `reap`."""

GRACE = 1.0
"""Maximum seconds that `kill` waits for processes that are about to end, such as the backends of Postgres."""


class Started(Protocol):
    """A process of asyncio or `subprocess`."""

    @property
    def pid(self) -> int:
        """The id of the process."""

    @property
    def returncode(self) -> int | None:
        """The exit code; None until the process is reaped."""


ours: WeakSet[Started] = WeakSet()
"""The processes that this process has started, and that asyncio or `subprocess` reaps."""

_starts: set[object] = set()


@contextmanager
def starting() -> Iterator[None]:
    """Make `reap` do nothing while the block starts processes that are not yet in `ours`."""
    start = object()
    _starts.add(start)
    try:
        yield
    finally:
        _starts.discard(start)


def adopt() -> bool:
    """Become the parent of each descendant whose own parent ends; return false on a system that cannot do this."""
    if not sys.platform.startswith("linux"):
        return False
    pr_set_child_subreaper = 36
    return bool(ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0)


async def keep_reaping() -> None:
    """On Linux, call `reap` regularly until cancelled. Elsewhere, return at once: init reaps the orphans."""
    while sys.platform.startswith("linux"):
        reap()
        await asyncio.sleep(REAP_EVERY)


def reap() -> None:
    """Reap the orphans that have ended; call this in the thread of the event loop.

    The kernel names one ended child at a time. If this child is one of `ours`, the other children wait for a later
    round.
    """
    with suppress(ChildProcessError):  # this process has no child
        while not _starts and (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in {process.pid for process in ours if process.returncode is None}:
                return
            os.waitpid(ended.si_pid, 0)


def kill() -> list[str]:
    """Kill every descendant that still runs after `GRACE` seconds; returns the pid and the name of each."""
    killed = []
    _, running_on = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=GRACE)
    for child in running_on:
        with suppress(psutil.NoSuchProcess):  # the process has just ended
            name = child.name()
            child.kill()
            killed.append(f"pid {child.pid} ({name})")
    return killed
