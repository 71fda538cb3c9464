"""Standstills of the machine. A process that does not get a processor can lose a lead without a fault of its own."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

STANDSTILL = 0.2
"""Seconds for which this process must stand still to count as a standstill of the machine."""
WINDOW = 0.25
"""Seconds between two looks at the waits of the other processes."""
STARVED = 0.1
"""Seconds that a process must wait for a processor within a window to count as a standstill."""
_STEP = 0.02


class Machine:
    """Watches for standstills. `standstills` has from when until when each of them lasted, in ms since 1970.

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
        waited: dict[int, float] = {}
        at = looked_at = self._now()
        while True:
            await asyncio.sleep(_STEP)
            before, at = at, self._now()
            if at - before > 1000 * STANDSTILL:
                self._add(before, at)
            if at - looked_at >= 1000 * WINDOW:
                known, waited = waited, {pid: waited_for_processor(pid) for pid in self._pids()}
                if any(seconds - known.get(pid, seconds) > STARVED for pid, seconds in waited.items()):
                    self._add(looked_at, at)
                looked_at = at

    def _add(self, began: float, ended: float) -> None:
        """Add a standstill, or prolong the last one."""
        if self.standstills and began <= self.standstills[-1][1]:
            began = min(began, self.standstills.pop()[0])
        self.standstills.append((began, ended))


def waited_for_processor(pid: int) -> float:
    """Return the seconds that the main thread has been ready to run without a processor; 0 if that is unknown."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # the process has just ended, or the kernel keeps no such numbers
        return 0.0
