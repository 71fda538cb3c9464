"""Standstills of the machine. A process that gets no processor can lose its lease although it has no fault."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

STANDSTILL = 0.2
"""Minimum standstill of a processor, in seconds, that counts as a standstill of the machine."""
WINDOW = 0.25
"""Seconds between two reads of the other processes' waiting times."""
STARVED = 0.1
"""Minimum wait of a process for a processor within a window, in seconds, that counts as a standstill."""
_STEP = 0.02


class Machine:
    """Watches for standstills.

    `standstills` has the start and the end of each standstill, in ms since 1970. Standstills may overlap.

    Args:
        pids: returns the processes that the machine must not starve.
        now: returns the time in ms since 1970.
    """

    def __init__(self, pids: Callable[[], Iterable[int]], now: Callable[[], float]) -> None:
        self.standstills: list[tuple[float, float]] = []
        self._pids = pids
        self._now = now

    async def run(self) -> NoReturn:
        """Watch until cancelled."""
        stop = threading.Event()
        for processor in os.sched_getaffinity(0):
            threading.Thread(target=self._watch_processor, args=(processor, stop), daemon=True).start()
        try:
            await self._watch_waits()
        finally:
            stop.set()

    def _watch_processor(self, processor: int, stop: threading.Event) -> None:
        """Watch one processor.

        A hypervisor can take a processor away while the others run. The waiting times of processes do not show this.
        """
        os.sched_setaffinity(0, {processor})  # applies to this thread only
        at = self._now()
        while not stop.wait(_STEP):
            before, at = at, self._now()
            if at - before > 1000 * STANDSTILL:
                self.standstills.append((before, at))

    async def _watch_waits(self) -> NoReturn:
        waited: dict[int, float] = {}
        at = self._now()
        while True:
            await asyncio.sleep(WINDOW)
            before, at = at, self._now()
            known, waited = waited, {pid: waited_for_processor(pid) for pid in self._pids()}
            if any(seconds - known.get(pid, seconds) > STARVED for pid, seconds in waited.items()):
                self.standstills.append((before, at))


def waited_for_processor(pid: int) -> float:
    """Return the seconds for which the main thread was ready to run but had no processor; 0 if unknown."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # the process has just ended, or the kernel does not record the waits
        return 0.0
