"""A limit of half a core for this process, as in an ECS task of 512 units.

Postgres has no limit, since it is not in the task.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PERIOD, QUOTA = 100_000, 50_000
"""Length of a period, and the processor time allowed in each period, in microseconds."""


class NoQuotaError(Exception):
    """This process cannot limit its processor time; the text gives the reason."""


@contextmanager
def half_a_core() -> Iterator[None]:
    """Limit this process to half a core while the block runs.

    Raises:
        NoQuotaError: the machine has no cgroups for the processor, or this process may not create one.
    """
    unified = (ROOT / "cgroup.controllers").exists()
    controller = ROOT if unified else ROOT / "cpu"
    group = controller / f"bench-{os.getpid()}"
    try:
        home = controller / _own_group(unified=unified).lstrip("/")
        if unified:
            (ROOT / "cgroup.subtree_control").write_text("+cpu")
        group.mkdir()
    except OSError as error:
        raise NoQuotaError(f"cgroups: {error.filename}: {error.strerror}") from error
    try:
        try:
            if unified:
                (group / "cpu.max").write_text(f"{QUOTA} {PERIOD}")
            else:
                (group / "cpu.cfs_quota_us").write_text(str(QUOTA))
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError as error:
            raise NoQuotaError(f"cgroups: {error.filename}: {error.strerror}") from error
        try:
            yield
        finally:
            (home / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        group.rmdir()


def _own_group(*, unified: bool) -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (unified and not controllers) or "cpu" in controllers.split(","):
            return path
    raise NoQuotaError("this machine has no cgroups for the processor")
