"""New streams are refused while the container or the task is short of memory, or too many streams are open.

A container above its memory limit is killed with all its streams. Each stream also needs a connection, and short
requests need some too. A refused client can reach another task with its next attempt. Open streams stay.
"""

import asyncio
import ctypes
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from service.api.cgroup_memory import MemoryUse
from service.telemetry import HttpMetrics

REFUSE_ABOVE = 0.85
"""Share of the memory limit above which new streams are refused."""
ACCEPT_BELOW = 0.80
"""Share of the memory limit below which new streams are accepted again."""
NOT_FULL_BELOW = 0.95
"""Share of the maximum number of open streams. Below it, the log reports that new streams are accepted again."""
INTERVAL = 1.0
"""Time between two readings, in seconds."""
TRIM_EVERY = 10
"""Number of readings between two releases of free memory to the system, while new streams are refused."""

logger = logging.getLogger(__name__)


class NoNewStream(Exception):
    """The task has too little memory, or too few connections, for another stream."""


def refuses(use: MemoryUse | None, *, refused_before: bool) -> bool:
    """Whether new streams are refused at this use of the memory. Without a limit they never are."""
    if use is None:
        return False
    if refused_before:
        return use.share >= ACCEPT_BELOW
    return use.share > REFUSE_ABOVE


class StreamAdmission:
    """Watches the memory, counts the open streams, and decides whether a new stream may begin.

    Args:
        read: returns the use of the memory; None without a limit.
        metrics: the metrics that show the use and the decision.
        most: maximum number of open streams.
    """

    def __init__(self, read: Callable[[], MemoryUse | None], metrics: HttpMetrics, most: int) -> None:
        self._read = read
        self._metrics = metrics
        self._most = most
        self._open = 0
        self._full = False
        self._refused_one = False
        self._use: MemoryUse | None = None
        self._refusing = False

    @property
    def memory(self) -> str:
        """`ok`, or the use of the memory while new streams are refused."""
        return f"{_described(self._use)}; new streams are refused" if self._refusing else "ok"

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a stream as open during the block.

        Raises:
            NoNewStream: new streams are refused.
        """
        if self._refusing:
            raise NoNewStream("the memory of this task is short; no new stream can be opened now")
        if self._open >= self._most:
            if not self._full:
                logger.warning("new streams are refused: %d are open, which is the limit of this task", self._open)
            self._full = self._refused_one = True
            raise NoNewStream("this task has too many open streams; no new stream can be opened now")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def run(self) -> None:
        """Watch the memory, until cancelled."""
        for number in count():
            self.look()
            if self._refusing and number % TRIM_EVERY == 0:
                await asyncio.to_thread(return_free_memory)
            await asyncio.sleep(INTERVAL)

    def look(self) -> None:
        """Read the memory once, decide about new streams, and update the log and the metrics."""
        use = self._use = self._read()
        refused_before = self._refusing or self._full
        refusing = refuses(use, refused_before=self._refusing)
        if refusing and not self._refusing:
            logger.warning("new streams are refused: %s; open streams stay", _described(use))
        self._refusing = refusing
        self._full = self._full and self._open >= self._most * NOT_FULL_BELOW
        if refused_before and not (self._refusing or self._full):
            logger.info("new streams are accepted again: %s; %d streams are open", _described(use), self._open)
        self._metrics.streams_refused.set(refusing or self._refused_one or self._open >= self._most)
        self._refused_one = False
        self._metrics.memory_share.set(use.share if use is not None else 0.0)


def return_free_memory() -> None:
    """Return the memory of closed streams to the system; does nothing without glibc.

    The C library keeps freed memory, and the cgroup counts this memory as used. Without this call, a task that has once
    refused streams would refuse them until its end. Python's own allocator keeps much more memory, so the image sets
    PYTHONMALLOC=malloc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _described(use: MemoryUse | None) -> str:
    if use is None:
        return "no memory limit is known"
    mebibytes = 1 << 20
    return f"{use.used / mebibytes:.0f} MiB of the memory limit of {use.limit / mebibytes:.0f} MiB are in use"
