"""A task's share of the processor: the share in its definition, even if this machine has other load.

Podman makes the cgroups of the containers below the task's cgroup, which is below one cgroup for all tasks. This module
supports both versions of cgroups.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from ops.rehearse.programs import RehearsalError

ROOT = Path("/sys/fs/cgroup")
PARENT = "rehearse"
PERIOD = 100_000
"""Period of a quota, in microseconds."""

WEIGHT_V1, WEIGHT_V2 = 16_384, 1_600
"""Share of the whole rehearsal: 16 times the share of other processes, so that a busy machine does not slow it down."""

STAGE, STAGE_V1, STAGE_V2 = "stage", 4096, 400
"""Name and share of the group of the servers, the load and the observers, next to the tasks' groups."""

REMOVED_WITHIN = 5.0


def is_unified() -> bool:
    """Return true if all cgroups have version 2."""
    return (ROOT / "cgroup.controllers").exists()


@asynccontextmanager
async def task_group(label: str, cpu: int | None) -> AsyncIterator[str]:
    """Make the cgroup of a task for the block; yields its path for podman.

    Args:
        label: name of the task.
        cpu: limit of the task in 1024ths of a core; None means no limit.

    Raises:
        RehearsalError: this machine does not let us make cgroups.
    """
    try:
        _make(label, None if cpu is None else PERIOD * cpu // 1024)
    except OSError as error:
        raise RehearsalError(f"cgroups: {error.filename}: {error.strerror}") from error
    try:
        yield f"/{PARENT}/{label}"
    finally:
        await _remove(label)


@contextmanager
def stage_group() -> Iterator[None]:
    """Move this process, and the processes that it starts, into the stage's group for the block.

    Raises:
        RehearsalError: this machine does not let us make cgroups.
    """
    home = _cpus() / _own_group().lstrip("/")
    stage = _cpus() / PARENT / STAGE
    try:
        _make(STAGE, None)
        file, share = ("cpu.weight", STAGE_V2) if is_unified() else ("cpu.shares", STAGE_V1)
        (stage / file).write_text(str(share))
        (stage / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        raise RehearsalError(f"cgroups: {error.filename}: {error.strerror}") from error
    try:
        yield
    finally:
        (home / "cgroup.procs").write_text(str(os.getpid()))


def _cpus() -> Path:
    return ROOT if is_unified() else ROOT / "cpu"


def _own_group() -> str:
    """Return the path of this process's processor cgroup."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (is_unified() and not controllers) or "cpu" in controllers.split(","):
            return path
    raise RehearsalError("this machine has no cgroups for the processor")


def _make(label: str, quota: int | None) -> None:
    """Make a task's group; `quota` is in microseconds of each `PERIOD`."""
    task = _cpus() / PARENT / label
    task.mkdir(parents=True, exist_ok=True)
    if is_unified():
        # A group that has processes cannot enable controllers for child groups.
        for group in (ROOT, task.parent, *([task] if label != STAGE else [])):
            (group / "cgroup.subtree_control").write_text("+cpu +memory +pids")
        (task.parent / "cpu.weight").write_text(str(WEIGHT_V2))
        (task / "cpu.max").write_text(f"{quota or 'max'} {PERIOD}")
    else:
        (task.parent / "cpu.shares").write_text(str(WEIGHT_V1))  # each task keeps the default, 1024
        (task / "cpu.cfs_quota_us").write_text(str(quota or -1))


def groups() -> list[Path]:
    """Return the cgroups of all rehearsals, the innermost first."""
    tops = [ROOT / PARENT, *(controller / PARENT for controller in ROOT.iterdir() if controller.is_dir())]
    found = [Path(folder) for top in tops for folder, _, _ in os.walk(top)]  # a folder may vanish during the walk
    return sorted(found, key=lambda path: -len(path.parts))


async def remove_groups() -> None:
    """Remove the groups that earlier rehearsals left; groups with processes stay."""
    for group in groups():
        with suppress(OSError):
            group.rmdir()


async def _remove(label: str) -> None:
    """Remove a task's groups. A container's group vanishes shortly after the container, so wait until it is gone."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + REMOVED_WITHIN
    while loop.time() < deadline:
        left = [group for group in groups() if label in group.parts]
        if not left:
            return
        for group in left:
            with suppress(OSError):
                group.rmdir()
        await asyncio.sleep(0.05)
