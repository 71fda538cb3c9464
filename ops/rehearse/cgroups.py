"""A task's share of the processor: what its definition gives it, whatever else this machine does.

Podman makes the cgroups of the containers below the task's, which is below one that all tasks share. Both versions of
cgroups are known.
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
"""Microseconds for which a quota counts."""

WEIGHT_V1, WEIGHT_V2 = 16_384, 1_600
"""The share of the whole rehearsal: 16 times that of another process, so that a busy machine does not slow it down."""

STAGE, STAGE_V1, STAGE_V2 = "stage", 4096, 400
"""The group of servers, load and observers beside the tasks' groups, and its share."""

REMOVED_WITHIN = 5.0


def is_unified() -> bool:
    """Return true if all cgroups have version 2."""
    return (ROOT / "cgroup.controllers").exists()


@asynccontextmanager
async def task_group(label: str, cpu: int | None) -> AsyncIterator[str]:
    """The cgroup of a task, in podman's words, for as long as the block lasts.

    Args:
        label: the task's.
        cpu: of the task, in 1024ths of a core; None is no limit.

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
    """Put this process, and what it starts, beside the tasks for as long as the block lasts.

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
    """This process's cgroup for the processor."""
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
        for group in (ROOT, task.parent, *([task] if label != STAGE else [])):  # a group with processes has no groups
            (group / "cgroup.subtree_control").write_text("+cpu +memory +pids")
        (task.parent / "cpu.weight").write_text(str(WEIGHT_V2))
        (task / "cpu.max").write_text(f"{quota or 'max'} {PERIOD}")
    else:
        (task.parent / "cpu.shares").write_text(str(WEIGHT_V1))  # a task's own are the default, 1024
        (task / "cpu.cfs_quota_us").write_text(str(quota or -1))


def groups() -> list[Path]:
    """The cgroups of rehearsals, the innermost first."""
    tops = [ROOT / PARENT, *(controller / PARENT for controller in ROOT.iterdir() if controller.is_dir())]
    found = [Path(folder) for top in tops for folder, _, _ in os.walk(top)]  # which may vanish meanwhile
    return sorted(found, key=lambda path: -len(path.parts))


async def remove_groups() -> None:
    """Remove what rehearsals have left; groups with processes stay."""
    for group in groups():
        with suppress(OSError):
            group.rmdir()


async def _remove(label: str) -> None:
    """Remove a task's groups: those of its containers vanish a moment after them."""
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
