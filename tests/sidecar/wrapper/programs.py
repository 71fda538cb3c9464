"""Programs for the wrapper (`python -m sidecar exec`) to run, and the wrapper as a child process."""

import asyncio
import os
import re
import signal
import stat
from pathlib import Path

from tests.support.processes import Process, RealSidecar, get_json, killed_at_exit
from tests.support.waiting import eventually

NAME = "background_services"
BECOME = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
"""A Python program that executes the command in its arguments, in its own process."""

POLITE = """\
trap 'echo "stop $LEASE_HOLDER" >>"$DIARY"; sleep 0.3; echo "end $LEASE_HOLDER $LEASE_TOKEN" >>"$DIARY"; exit 7' TERM
echo "begin $LEASE_HOLDER $LEASE_TOKEN $LEASE_NAME" >>"$DIARY"
while :; do sleep 0.05; done
"""
"""A shell script that ends a moment after SIGTERM."""

STUBBORN = """\
trap '' TERM INT HUP
echo "begin $LEASE_HOLDER $LEASE_TOKEN" >>"$DIARY"
for number in 1 2 3; do
    (trap '' TERM INT HUP; echo "$(exec sh -c 'echo $PPID')" >>"$PIDS"; while :; do sleep 0.05; done) &
done
echo $$ >>"$PIDS"
while :; do sleep 0.05; done
"""
"""A shell script that ignores SIGTERM and forks processes that also ignore SIGTERM."""

LEAVES_A_CHILD = """\
(trap '' TERM; echo "$(exec sh -c 'echo $PPID')" >>"$PIDS"; while :; do sleep 0.05; done) &
while ! [ -s "$PIDS" ]; do sleep 0.01; done
echo "end $LEASE_HOLDER" >>"$DIARY"
"""
"""A shell script that ends and leaves behind a process that ignores SIGTERM."""


ALIVE = """\
for pid in $(cat '{pids}'); do
    grep -q '^State:.*[RSDT] ' /proc/$pid/status && echo beside >>"$DIARY"
done
"""
"""Shell lines that write to the diary if processes of the previous program still run."""


class Wrapper(Process):
    """`python -m sidecar exec LEASE OPTIONS -- COMMAND` with the sidecar at `url`."""

    def __init__(self, folder: Path, name: str, url: str, options: str, *command: str, **environment: str) -> None:
        self.folder = folder
        self.diary_file = folder / "diary"
        self.pids_file = folder / f"{name}.pids"
        self.log_file = folder / f"{name}.log"
        super().__init__(
            self.log_file,
            ["-m", "sidecar", "exec", NAME, *options.split(), "--", *command],
            SIDECAR_URL=url,
            LOG_FORMAT="text",
            DIARY=str(self.diary_file),
            PIDS=str(self.pids_file),
            **environment,
        )

    @property
    def diary(self) -> list[str]:
        """The lines that the programs of all wrappers of this folder wrote, in order."""
        return self.diary_file.read_text().splitlines() if self.diary_file.exists() else []

    @property
    def began(self) -> list[str]:
        return [line for line in self.diary if line.startswith("begin")]

    @property
    def pids(self) -> list[int]:
        """The process ids that the program wrote."""
        return [int(line) for line in self.pids_file.read_text().split()] if self.pids_file.exists() else []

    @property
    def commands(self) -> list[int]:
        """The process ids of COMMAND in the log."""
        return [int(pid) for pid in re.findall(r"runs as process (\d+)", self.output)]

    @property
    def children(self) -> list[int]:
        """The wrapper's children: COMMAND and the watchdog."""
        assert self.process is not None
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def watchdog(self) -> int:
        """The process id of the watchdog, 0 if no watchdog runs."""
        for pid in self.children:
            if b"watchdog.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return 0


def state(pid: int) -> str:
    """The letter of a process's state, '' if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def run(pids: list[int]) -> list[int]:
    """The processes that still run."""
    return [pid for pid in pids if state(pid) not in ("", "Z", "X")]


def script(folder: Path, text: str, *, name: str = "program", first: str = "#!/bin/sh\n") -> str:
    """Write a program; return its path."""
    path = folder / name
    path.write_text(first + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def kill_all(pids: list[int]) -> None:
    """Kill all of these processes after the test."""
    for pid in run(pids):
        os.kill(pid, signal.SIGKILL)


def blocked_signals(pid: int) -> set[signal.Signals]:
    """The signals that a process blocks."""
    blocked = int(re.findall(r"SigBlk:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())[0], 16)
    return {number for number in signal.Signals if blocked >> (number - 1) & 1}


async def follows(sidecar: RealSidecar) -> bool:
    """True if a sidecar reports another holder."""
    status = await get_json(f"{sidecar.url}/status")
    return bool(status and status["leases"][NAME]["state"] == "following" and status["leases"][NAME]["holder"])


async def hand_over(sidecars: tuple[RealSidecar, RealSidecar], folder: Path, program: tuple[str, ...]) -> None:
    """Run a program in two tasks, and stop the first task.

    The program must write the same lines `begin` and `end` to the diary as `POLITE`.
    """
    one = Wrapper(folder, "one", sidecars[0].url, "", *program)
    other = Wrapper(folder, "other", sidecars[1].url, "", *program)
    with killed_at_exit(one, other):
        one.start()
        await eventually(lambda: one.began)
        other.start()
        await eventually(lambda: follows(sidecars[1]))
        token = (await get_json(f"{sidecars[0].url}/status"))["leases"][NAME]["token"]
        assert one.began == [f"begin task-a {token} {NAME}"]
        one.send(signal.SIGTERM)
        await eventually(lambda: len(one.began) == 2)
        assert await asyncio.to_thread(one.wait) == 0
        lines = [line for line in one.diary if not line.startswith("stop")]
        assert [line.split()[:2] for line in lines] == [["begin", "task-a"], ["end", "task-a"], ["begin", "task-b"]]
        assert int(lines[2].split()[2]) > token
        assert "campaigns again" not in one.output
        assert await asyncio.to_thread(other.stop, signal.SIGINT) == 0
