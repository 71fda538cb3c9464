"""Faults of one container: killed, or over its memory."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from ops.local.processes import running
from ops.rehearse.member import Member
from ops.rehearse.programs import RehearsalError

CGROUPS = Path("/sys/fs/cgroup")
FILLED_WITHIN = 60.0

_FILL = """
import os, sys
group, victim = sys.argv[1:]
open(group, "w").write(str(os.getpid()))
open("/proc/self/oom_score_adj", "w").write("-1000")
held = []
while os.path.exists(f"/proc/{victim}"):
    held.append(b"x" * (8 << 20))
"""
"""Joins the container's cgroup and takes memory. The kernel then kills the container's process, and never this one."""


def kill(member: Member, container: str) -> None:
    """SIGKILL to a container's first process: the kernel ends the rest of the container."""
    os.kill(_pid(member, container), signal.SIGKILL)


async def fill_memory(member: Member, container: str) -> None:
    """Take memory in the container's cgroup until the kernel kills the container for it.

    Raises:
        RehearsalError: it is not killed.
    """
    pid = _pid(member, container)
    groups = await asyncio.to_thread(Path(f"/proc/{pid}/cgroup").read_text)
    command = [sys.executable, "-c", _FILL, str(memory_group(groups) / "cgroup.procs"), str(pid)]
    said: list[bytes] = []
    try:
        async with (
            asyncio.timeout(FILLED_WITHIN),
            running(command, environment=os.environ, folder=Path("/"), output=said.append) as filling,
        ):
            code = await filling.wait()
    except TimeoutError as error:
        raise RehearsalError(f"{member.label}/{container} was not killed for its memory") from error
    if code != 0:
        last = b"".join(said).decode(errors="replace").strip().splitlines()[-1:]
        raise RehearsalError(f"the memory of {member.label}/{container} cannot be filled: {' '.join(last)}")


def memory_group(groups: str) -> Path:
    """The folder of the memory cgroup that `/proc/PID/cgroup` names, version 1 or 2.

    Raises:
        RehearsalError: it names none.
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


def _pid(member: Member, container: str) -> int:
    pid = member.pids.get(container)
    if pid is None:
        raise RehearsalError(f"{member.label} has no running container {container}")
    return pid
