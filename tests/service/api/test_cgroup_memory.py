"""The memory of cgroups, read from files in the kernel's format and from this machine's own files."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from service.api.cgroup_memory import CgroupMemory, MemoryUse

MEBIBYTE = 1 << 20
NO_LIMIT_V1 = 9223372036854771712
V1_STAT = "cache {cache}\nrss 1\ninactive_file 7\nhierarchical_memory_limit {limit}\ntotal_inactive_file {inactive}\n"
V2_STAT = "anon 1\nfile {cache}\ninactive_file {inactive}\nactive_file 9\n"


class Container:
    """The cgroup files that a container can read: files of /proc, and the mounted hierarchy."""

    def __init__(self, folder: Path, *, unified: bool) -> None:
        self.proc, self.mounted, self.unified = folder / "proc", folder / "memory", unified
        self.proc.mkdir()

    def sees(self, *, path: str, root: str) -> CgroupMemory:
        """The reader of a container whose /proc/self/cgroup has this path and whose mount has this root."""
        hybrid = "5:cpu,cpuacct:/elsewhere\n1:name=systemd:/elsewhere\n"
        own = f"0::{path}\n" if self.unified else f"4:memory:{path}\n{hybrid}0::/elsewhere\n"
        (self.proc / "cgroup").write_text(own)
        kind = "cgroup2 cgroup rw,nsdelegate" if self.unified else "cgroup cgroup rw,memory"
        lines = (
            "21 20 0:19 / /proc rw,nosuid - proc proc rw",
            f"30 25 0:26 /docker/x {self.mounted}-cpu ro,nosuid - cgroup cgroup rw,cpu,cpuacct",
            f"31 25 0:27 {root} {self.mounted} ro,nosuid,nodev shared:9 master:10 - {kind}",
        )
        (self.proc / "mountinfo").write_text("\n".join([*lines, ""]))
        return CgroupMemory.of_process(self.proc)

    def group(self, path: str, *, usage: int, limit: int | None, inactive: int = 0, parents: int | None = None) -> None:
        """Write the files of a cgroup. Sizes are given in MiB.

        `parents` is the smallest limit of its parents, which only version 1 shows.
        """
        folder = self.mounted / path
        folder.mkdir(parents=True, exist_ok=True)
        values = {"cache": 3, "inactive": inactive * MEBIBYTE}
        if self.unified:
            files: Mapping[str, object] = {
                "memory.max": "max" if limit is None else limit * MEBIBYTE,
                "memory.current": usage * MEBIBYTE,
                "memory.stat": V2_STAT.format(**values),
            }
        else:
            bytes_limit = NO_LIMIT_V1 if limit is None else limit * MEBIBYTE
            above = bytes_limit if parents is None else min(bytes_limit, parents * MEBIBYTE)
            files = {
                "memory.limit_in_bytes": bytes_limit,
                "memory.usage_in_bytes": usage * MEBIBYTE,
                "memory.stat": V1_STAT.format(**values, limit=above),
            }
        for name, content in files.items():
            (folder / name).write_text(f"{content}\n".replace("\n\n", "\n"))


@pytest.fixture(params=[False, True], ids=["version 1", "version 2"])
def container(request: pytest.FixtureRequest, tmp_path: Path) -> Container:
    return Container(tmp_path, unified=request.param)


def mebibytes(used: int, limit: int) -> MemoryUse:
    return MemoryUse(used * MEBIBYTE, limit * MEBIBYTE)


def test_file_pages_that_the_kernel_would_free_first_do_not_count(container: Container) -> None:
    container.group("", usage=700, inactive=300, limit=896)
    assert container.sees(path="/", root="/").read() == mebibytes(400, 896)


def test_without_a_limit_there_is_no_reading(container: Container) -> None:
    container.group("", usage=700, limit=None)
    assert container.sees(path="/", root="/").read() is None


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/", "/"),  # the container has its own cgroup namespace
        ("/ecs/task/container", "/ecs/task/container"),  # the engine mounts only the container's cgroup
        ("/../../elsewhere", "/"),
        ("/", "/../.."),
        ("/moved/away", "/ecs/task/container"),
    ],
)
def test_a_container_that_sees_only_its_own_cgroup_reads_it(container: Container, path: str, root: str) -> None:
    container.group("", usage=90, limit=100)
    assert container.sees(path=path, root=root).read() == mebibytes(90, 100)


def test_the_cgroup_nearer_to_its_limit_counts_container_or_task(container: Container) -> None:
    container.group("", usage=5000, limit=None)
    container.group("ecs", usage=3000, limit=None)
    container.group("ecs/task", usage=960, limit=1024)
    container.group("ecs/task/container", usage=500, limit=896)
    reader = container.sees(path="/ecs/task/container", root="/")
    assert reader.read() == mebibytes(960, 1024)
    container.group("ecs/task/container", usage=890, limit=896)
    assert reader.read() == mebibytes(890, 896)
    container.group("ecs/task/container", usage=890, limit=None)
    assert reader.read() == mebibytes(960, 1024)


def test_a_sibling_of_the_process_s_cgroup_does_not_count(container: Container) -> None:
    container.group("task", usage=1, limit=None)
    container.group("task/other", usage=99, limit=100)
    container.group("task/own", usage=10, limit=100)
    assert container.sees(path="/task/own", root="/").read() == mebibytes(10, 100)


def test_the_limit_of_an_invisible_parent_counts_if_the_kernel_shows_it(tmp_path: Path) -> None:
    container = Container(tmp_path, unified=False)
    container.group("", usage=400, limit=None, parents=512)
    assert container.sees(path="/", root="/").read() == mebibytes(400, 512)


@pytest.mark.parametrize("content", ["", "none\n", "0\n", "-1\n"])
def test_a_file_without_a_valid_number_gives_no_reading(container: Container, content: str) -> None:
    container.group("", usage=90, limit=100)
    reader = container.sees(path="/", root="/")
    for name in ("memory.max", "memory.limit_in_bytes"):
        if (container.mounted / name).exists():
            (container.mounted / name).write_text(content)
    assert reader.read() is None


def test_a_cgroup_that_cannot_be_read_gives_no_reading(container: Container, tmp_path: Path) -> None:
    assert container.sees(path="/", root="/").read() is None
    assert CgroupMemory.of_process(tmp_path / "none").read() is None


@pytest.mark.parametrize("stat", [None, "", "inactive_file\n", "total_inactive_file x\n"])
def test_the_whole_usage_counts_if_the_file_pages_are_unknown(container: Container, stat: str | None) -> None:
    container.group("", usage=90, limit=100, inactive=50)
    (container.mounted / "memory.stat").unlink()
    if stat is not None:
        (container.mounted / "memory.stat").write_text(stat)
    assert container.sees(path="/", root="/").read() == mebibytes(90, 100)


def test_the_name_of_another_cgroup_may_be_any_bytes(container: Container) -> None:
    container.group("", usage=90, limit=100)
    container.sees(path="/", root="/")
    for name in ("cgroup", "mountinfo"):
        file = container.proc / name
        file.write_bytes(file.read_bytes() + (b"9:pids:/\xff\n" if name == "cgroup" else b""))
    assert CgroupMemory.of_process(container.proc).read() == mebibytes(90, 100)


def test_each_read_returns_the_present_values(container: Container) -> None:
    container.group("", usage=90, limit=100)
    reader = container.sees(path="/", root="/")
    assert reader.read() == mebibytes(90, 100)
    container.group("", usage=10, limit=200)
    assert reader.read() == mebibytes(10, 200)


def test_the_process_s_own_cgroup_can_be_read() -> None:
    """Without a limit the reader returns None and raises no error."""
    use = CgroupMemory.of_process().read()
    assert use is None or 0 < use.used < use.limit
