"""`python -m sidecar exec` compared with single-beat: `python -m bench.wrappers`.

Two wrappers of each kind wrap the same program, as in two tasks, on a real Redis with the wrapper's defaults. Then a
fault hits the wrapper of the running copy, or Redis. The program writes a diary, which shows for how long both copies
ran at once, and for how long no copy ran. single-beat has its own virtual environment (`bench.environments`).
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import psutil

from bench.environments import Missing, environment
from ops.local.servers import RedisServer, free_port

LIMIT = 90.0
"""Timeout for the start of the other copy, in seconds."""
AFTER = 12.0
"""Duration of the observation after the start of the other copy, in seconds."""
PROGRAM = """
import os, signal, sys, time
name, stubborn = sys.argv[1], sys.argv[2] == "stubborn"
if stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        name += "-child"
with open(os.environ["DIARY"], "a") as diary:
    while True:
        print(name, os.getpid(), time.clock_gettime(time.CLOCK_MONOTONIC), file=diary, flush=True)
        time.sleep(0.02)
"""


class Task:
    """A process of the comparison: a wrapper that runs the program, or a sidecar."""

    def __init__(self, name: str, command: list[str], **environment: str) -> None:
        self.name = name
        self._command, self._environment = command, environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the wrapper in a new session, as in its own container."""
        self.process = subprocess.Popen(self._command, env={**os.environ, **self._environment},
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        start_new_session=True)  # fmt: skip

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the wrapper alone."""
        assert self.process is not None
        self.process.send_signal(number)


class Diary:
    """The diary of both copies: the times at which each copy ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def times(self) -> dict[str, list[float]]:
        """The times at which each copy ran, by its name; a child process counts under its parent."""
        seen: dict[str, list[float]] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            name, _, at = line.split()
            seen.setdefault(name.partition("-")[0], []).append(float(at))
        return seen

    def pids(self) -> set[int]:
        """The pid of every process that wrote."""
        return {int(line.split()[1]) for line in self.path.read_text().splitlines()} if self.path.exists() else set()


def together(one: list[float], other: list[float]) -> float:
    """Return the seconds in which both copies ran, to a tenth of a second."""
    return len({round(at, 1) for at in one} & {round(at, 1) for at in other}) / 10


def none(times: dict[str, list[float]]) -> float:
    """Return the longest time without a running copy, in seconds."""
    moments = sorted(at for seen in times.values() for at in seen)
    return max((after - before for before, after in pairwise(moments)), default=0.0)


def wait(condition: Callable[[], object], within: float = LIMIT) -> bool:
    """Wait for a condition; returns False after the timeout."""
    until = time.monotonic() + within
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def pair(
    kind: str, folder: Path, redis: RedisServer, beat: Path, manner: str, *, guard: bool = False
) -> Iterator[tuple[list[Task], Diary]]:
    """Start two wrappers of a kind; the first wrapper runs its program.

    The failover guard assumes that a new Redis may have lost a write. So the guard is off in events in which Redis does
    not fail.
    """
    diary = Diary(folder / "diary")
    tasks, sidecars = [], []
    for name in ("a", "b"):
        program = [sys.executable, "-c", PROGRAM, name, manner]
        common = {"DIARY": str(diary.path)}
        if kind == "single-beat":
            tasks.append(Task(name, [str(beat), *program], **common, SINGLE_BEAT_REDIS_SERVER=redis.url,
                              SINGLE_BEAT_IDENTIFIER="bench", SINGLE_BEAT_HOST_IDENTIFIER=name))  # fmt: skip
            continue
        port = free_port()
        settings = {"REDIS_URL": redis.url, "LEASES": "bench", "INSTANCE_ID": name, "LOG_LEVEL": "error",
                    "FAILOVER_GUARD": str(guard),
                    "CONTROL_BIND": f"127.0.0.1:{port}", "METRICS_BIND": f"127.0.0.1:{free_port()}"}  # fmt: skip
        sidecars.append(Task(name, [sys.executable, "-m", "sidecar"], **settings))
        sidecars[-1].start()
        tasks.append(Task(name, [sys.executable, "-m", "sidecar", "exec", "bench", "--", *program], **common,
                          SIDECAR_URL=f"http://127.0.0.1:{port}"))  # fmt: skip
    try:
        tasks[0].start()
        if not wait(lambda: "a" in diary.times()):
            raise SystemExit(f"{kind}: the program did not begin")
        tasks[1].start()
        time.sleep(3)
        yield tasks, diary
    finally:
        for task in [*tasks, *sidecars]:
            if task.process is not None:
                task.send(signal.SIGKILL)
                task.process.wait()
        time.sleep(6 if kind != "single-beat" else 0)  # by then the watchdog has killed the program
        for pid in diary.pids():
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)


def measure(kind: str, event: str, beat: Path) -> str:
    """Return a line that describes the copies after an event."""
    with tempfile.TemporaryDirectory() as name, RedisServer(Path(name) / "redis") as redis:
        manner = "stubborn" if event == "forks" else "polite"
        with pair(kind, Path(name), redis, beat, manner, guard=event == "lost") as (tasks, diary):
            happened = time.clock_gettime(time.CLOCK_MONOTONIC)
            if event in ("stop", "forks"):
                tasks[0].send(signal.SIGTERM)
            elif event == "kill":
                tasks[0].send(signal.SIGKILL)
            elif event == "freeze":
                tasks[0].send(signal.SIGSTOP)
            elif event == "lost":
                redis.kill()
                redis.start()
            came = wait(lambda: any(at > happened for at in diary.times().get("b", [])))
            time.sleep(AFTER)
            times = {copy: [at for at in seen if at > happened - 1] for copy, seen in diary.times().items()}
            both = together(times.get("a", []), times.get("b", []))
            left = [at for at in times.get("a", []) if at > time.clock_gettime(time.CLOCK_MONOTONIC) - 1]
            first = f"{min(times['b']) - happened:6.2f} s" if came else "never"
            return (
                f"other copy began after {first:>9}, no copy ran for {none(times):5.2f} s, both ran for {both:5.1f} s"
                + (", and the first copy still runs" if left and came else "")
            )


def memory(kind: str, beat: Path) -> str:
    """Return the proportional memory (PSS) of a wrapper that runs its program, without the program and the sidecar."""
    with (
        tempfile.TemporaryDirectory() as name,
        RedisServer(Path(name) / "redis") as redis,
        pair(kind, Path(name), redis, beat, "polite") as (tasks, diary),
    ):
        process = tasks[0].process
        assert process is not None
        ours = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        total = sum(each.memory_full_info().pss for each in ours if each.pid not in diary.pids())
        return f"{total / 2**20:.1f} MiB"


EVENTS = {
    "stop": "SIGTERM to the wrapper",
    "forks": "SIGTERM to the wrapper; the program and its child process ignore it",
    "kill": "SIGKILL to the wrapper",
    "freeze": "the wrapper is frozen",
    "lost": "Redis restarts without its data",
}


def main() -> None:
    """Print the results of both wrappers for each event."""
    try:
        beat = environment("single-beat") / "single-beat"
    except Missing as error:
        print(f"bench.wrappers: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    for kind in ("single-beat", "sidecar exec"):
        print(f"{kind}: memory of the wrapper {memory(kind, beat)}", flush=True)
    for event, description in EVENTS.items():
        print(f"\n{description}")
        for kind in ("single-beat", "sidecar exec"):
            print(f"  {kind:14}{measure(kind, event, beat)}", flush=True)


if __name__ == "__main__":
    main()
