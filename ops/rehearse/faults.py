"""Faults of one container: a kill, too little memory, and memory use above the limit."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ops.local.containers import first_of
from ops.local.processes import running
from ops.rehearse.cgroups import is_unified
from ops.rehearse.member import Member
from ops.rehearse.programs import RehearsalError
from service.api.cgroup_memory import CgroupMemory

CGROUPS = Path("/sys/fs/cgroup")
FILLED_WITHIN = 60.0

_FILL = """
import os, sys
group, victim = sys.argv[1:]
with open(group, "w") as file:
    file.write(str(os.getpid()))
memory, chunk = os.memfd_create("fill"), b"x" * (1 << 20)
while os.path.exists(f"/proc/{victim}"):
    os.write(memory, chunk)
"""
"""Program that joins the container's cgroup and fills a file in memory.

The file counts for the cgroup and for no process. So the kernel kills the largest process of the container once the
container has too little memory.
"""


_TAKE = """
import os, sys, time
group, size = sys.argv[1:]
with open(group, "w") as file:
    file.write(str(os.getpid()))
memory, chunk = os.memfd_create("take"), b"x" * (1 << 20)
for _ in range(int(size) >> 20):
    os.write(memory, chunk)
print("taken", flush=True)
time.sleep(1e6)
"""
"""Program that takes the given number of bytes in the container's cgroup, and keeps them until it ends."""


async def kill(member: Member, container: str) -> None:
    """Send SIGKILL to a container's first process and wait for its end. The kernel ends the rest of the container."""
    pid = _pid(member, container)
    os.kill(pid, signal.SIGKILL)
    await _noticed(member, container, pid)


async def fill_memory(member: Member, container: str) -> None:
    """Take memory in the container's cgroup until the kernel kills the container for it.

    Raises:
        RehearsalError: the container is not killed.
    """
    pid = _pid(member, container)
    groups = await asyncio.to_thread(Path(f"/proc/{pid}/cgroup").read_text)
    command = [sys.executable, "-I", "-S", "-c", _FILL, str(memory_group(groups) / "cgroup.procs"), str(pid)]
    said: list[bytes] = []
    try:
        async with (
            asyncio.timeout(FILLED_WITHIN),
            running(command, environment=os.environ, folder=Path("/"), output=said.append) as filling,
        ):
            await filling.wait()
    except TimeoutError as error:
        raise RehearsalError(f"{member.label}/{container} was not killed for its memory") from error
    # The engine may end the filling program together with the container, so the program's exit status proves nothing.
    if await asyncio.to_thread(Path(f"/proc/{pid}").exists):
        last = b"".join(said).decode(errors="replace").strip().splitlines()[-1:]
        raise RehearsalError(f"the memory of {member.label}/{container} cannot be filled: {' '.join(last)}")
    await _noticed(member, container, pid)


@asynccontextmanager
async def memory_taken(member: Member, container: str, share: float) -> AsyncIterator[None]:
    """Keep `share` of the container's memory limit in use during the block.

    Raises:
        RehearsalError: the memory cannot be taken.
    """
    group = memory_group(await asyncio.to_thread(Path(f"/proc/{_pid(member, container)}/cgroup").read_text))
    use = CgroupMemory((group,), unified=is_unified()).read()
    if use is None:
        raise RehearsalError(f"{member.label}/{container} has no memory limit")
    size = max(0, round(share * use.limit) - use.used)
    command = [sys.executable, "-I", "-S", "-c", _TAKE, str(group / "cgroup.procs"), str(size)]
    taken = asyncio.Event()
    async with running(command, environment=os.environ, folder=Path("/"), output=lambda _: taken.set()) as taking:
        await first_of(taken, timeout=FILLED_WITHIN)
        if not taken.is_set():
            raise RehearsalError(f"the memory of {member.label}/{container} cannot be taken")
        try:
            yield
        finally:
            taking.kill()
            await taking.wait()


def memory_group(groups: str) -> Path:
    """Return the folder of the memory cgroup in the text of `/proc/PID/cgroup`, version 1 or 2.

    Raises:
        RehearsalError: the text names no memory cgroup.
    """
    unified = None
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return CGROUPS / "memory" / path.lstrip("/")
        if not controllers:
            unified = CGROUPS / path.lstrip("/")
    if unified is None:
        raise RehearsalError("this machine has no cgroups for memory")
    return unified


async def _noticed(member: Member, container: str, pid: int) -> None:
    """Wait until the task has noticed the end of the process."""
    while member.pids.get(container) == pid:  # noqa: ASYNC110 - only podman knows the pid, and it sends no event
        await asyncio.sleep(0.02)


def _pid(member: Member, container: str) -> int:
    pid = member.pids.get(container)
    if pid is None:
        raise RehearsalError(f"{member.label} has no running container {container}")
    return pid
