"""The memory of this process's cgroups and their limits, for version 1 and version 2.

ECS puts the cgroups of a task's containers below a cgroup of the task. Each of these cgroups may have a limit. A
container sees the parents of its cgroup only if the container engine shows them. So every visible cgroup counts, from
the process's cgroup up to the mounted one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NO_LIMIT = 1 << 60
"""Smallest size, in bytes, that means no limit. Without a limit, version 1 reports a number just below 2^63."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The memory of a cgroup, in bytes."""

    used: int
    limit: int

    @property
    def share(self) -> float:
        """The used share of the limit."""
        return self.used / self.limit


class CgroupMemory:
    """Reads a chain of cgroups, the process's own first.

    Args:
        groups: the folders of the cgroups.
        unified: whether they have version 2.
    """

    def __init__(self, groups: tuple[Path, ...], *, unified: bool) -> None:
        self._groups = groups
        self._read_group = _read_v2 if unified else _read_v1

    @classmethod
    def of_process(cls, proc: Path = Path("/proc/self")) -> "CgroupMemory":
        """The cgroups of a process; none if the process sees none. `proc` is its folder in /proc."""
        try:
            memberships = (proc / "cgroup").read_text(errors="surrogateescape").splitlines()
            mounts = (proc / "mountinfo").read_text(errors="surrogateescape").splitlines()
        except OSError:
            return cls((), unified=False)
        # In a hybrid set-up both versions are mounted, and only one of them controls the memory.
        for unified in (False, True):
            path, mount = _own_path(memberships, unified=unified), _mount(mounts, unified=unified)
            if path is not None and mount is not None:
                return cls(tuple(_chain(path, *mount)), unified=unified)
        return cls((), unified=False)

    def read(self) -> MemoryUse | None:
        """The cgroup that has used the largest share of its limit; None if no limit is known."""
        found = []
        for group in self._groups:
            try:
                use = self._read_group(group)
            except (OSError, ValueError):
                continue  # the root cgroup of version 2 lacks these files
            if 0 < use.limit < NO_LIMIT:
                found.append(use)
        return max(found, key=lambda use: use.share, default=None)


def _own_path(memberships: list[str], *, unified: bool) -> str | None:
    """The path of the process's memory cgroup in /proc/self/cgroup."""
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if (not controllers) if unified else "memory" in controllers.split(","):
            return path
    return None


def _mount(mounts: list[str], *, unified: bool) -> tuple[str, Path] | None:
    """The cgroup that is mounted for memory, and its mount point, from /proc/self/mountinfo."""
    for line in mounts:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2" if unified else (kind == "cgroup" and "memory" in options.split(",")):
            root, point = before.split(" ")[3:5]
            return root, Path(point)
    return None


def _chain(path: str, root: str, point: Path) -> Iterator[Path]:
    """The folders of the process's cgroup and of its visible parents.

    Without a cgroup namespace, `path` is the host's path, and the mounted cgroup is the container's own.
    """
    own, mounted = Path(path), Path(root)
    inside = own.relative_to(mounted) if own.is_relative_to(mounted) else Path()
    if ".." in inside.parts:  # outside the namespace
        inside = Path()
    folder = point / inside
    yield folder
    yield from (parent for parent in folder.parents if parent.is_relative_to(point))


# The usage includes the page cache. Before the kernel kills a process, it frees the file pages that were not used
# lately (`inactive_file`). So these pages are subtracted, as in `docker stats` and in the working set of Kubernetes.
# The rest of the cache is not subtracted: it includes tmpfs, which the kernel cannot free.


def _read_v1(group: Path) -> MemoryUse:
    stat = _stat(group)
    limit = int((group / "memory.limit_in_bytes").read_text())
    used = int((group / "memory.usage_in_bytes").read_text()) - stat.get("total_inactive_file", 0)
    # `hierarchical_memory_limit` is the smallest limit of this cgroup and of its parents, visible or not. A parent's
    # limit is compared with this cgroup's usage alone, because the usage of its other children is unknown.
    return MemoryUse(max(0, used), min(limit, stat.get("hierarchical_memory_limit", limit)))


def _read_v2(group: Path) -> MemoryUse:
    limit = (group / "memory.max").read_text().strip()
    used = int((group / "memory.current").read_text()) - _stat(group).get("inactive_file", 0)
    return MemoryUse(max(0, used), NO_LIMIT if limit == "max" else int(limit))


def _stat(group: Path) -> dict[str, int]:
    """The numbers of memory.stat.

    The dictionary is empty if the file cannot be read. The callers then subtract no file pages from the usage.
    """
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(" ") for line in lines)
    return {name: int(value) for name, _, value in pairs if value.isdecimal()}
