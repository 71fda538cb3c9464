"""The memory and the processor time of a task's containers, from their cgroups of version 1 or 2."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from ops.rehearse.cgroups import is_unified
from ops.rehearse.faults import memory_group
from service.api.cgroup_memory import CgroupMemory

LOOK_EVERY = 0.25


class Usage:
    """Watches the containers; `run` must run during the measurement.

    Args:
        pids: returns the first process of each container.
    """

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        self._pids = pids
        self._peaks: dict[str, int] = {}

    async def run(self) -> None:
        """Record the peaks of the working sets until cancelled."""
        while True:
            for name, pid in self._pids().items():
                groups = Path(f"/proc/{pid}/cgroup").read_text()  # noqa: ASYNC240 - this file is not on a disk
                use = CgroupMemory((memory_group(groups),), unified=is_unified()).read()
                if use is not None:
                    self._peaks[name] = max(use.used, self._peaks.get(name, 0))
            await asyncio.sleep(LOOK_EVERY)

    def peaks(self) -> Mapping[str, float]:
        """Return the largest working set of each container since the last call, in MiB."""
        peaks, self._peaks = self._peaks, {}
        return {name: used / (1 << 20) for name, used in peaks.items()}

    def processor_seconds(self) -> Mapping[str, float]:
        """Return the processor time of each container since its start, in seconds."""
        return {name: _processor_seconds(pid) for name, pid in self._pids().items()}


def _processor_seconds(pid: int) -> float:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if is_unified() and not controllers:
            (usage,) = Path(f"/sys/fs/cgroup{path}/cpu.stat").read_text().splitlines()[:1]
            return int(usage.removeprefix("usage_usec ")) / 1e6
        if "cpuacct" in controllers.split(","):
            return int(Path(f"/sys/fs/cgroup/cpuacct{path}/cpuacct.usage").read_text()) / 1e9
    raise ValueError(f"the container of process {pid} has no cgroup for the processor")
