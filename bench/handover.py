"""Hand-over times of several locks: from 'my work has ended' in one process to 'my work begins' in another.

`python -m bench.handover [ROUNDS]`. Each contender is a pair of processes on one Redis. The pairs take turns of a few
rounds, so that other load affects all alike. Ours uses two sidecars and HTTP. The others are bare locks without
fencing, grants or a sidecar.
"""

import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
from itertools import pairwise
from pathlib import Path

from ops.local.servers import RedisServer, free_port

KINDS = ("sidecar", "python-redis-lock", "redis-py")
TURN = 10
"""Number of hand-overs of one contender before the next contender's turn."""


def turn(kind: str, redis_url: str, rounds: int) -> list[float]:
    """Run a pair of processes for a number of hand-overs; returns the time of each in ms."""
    processes: list[subprocess.Popen[str]] = []
    addresses = [redis_url, redis_url]
    if kind == "sidecar":
        addresses = []
        for number in (1, 2):
            port = free_port()
            environment = {
                **os.environ, "REDIS_URL": redis_url, "LEASES": "bench", "FAILOVER_GUARD": "false",
                "LOG_LEVEL": "error", "CONTROL_BIND": f"127.0.0.1:{port}", "METRICS_BIND": f"127.0.0.1:{free_port()}",
                "INSTANCE_ID": f"bench-{number}",
            }  # fmt: skip
            processes.append(subprocess.Popen([sys.executable, "-m", "sidecar"], env=environment, text=True))
            addresses.append(f"http://127.0.0.1:{port}")
    said: queue.Queue[tuple[str, float]] = queue.Queue()
    pair = [
        subprocess.Popen([sys.executable, "-m", "bench.contender", kind, address], stdout=subprocess.PIPE, text=True)
        for address in addresses
    ]
    listeners = [threading.Thread(target=_listen, args=(process, said)) for process in pair]
    try:
        for listener in listeners:
            listener.start()
        events: list[tuple[str, float]] = []
        while sum(word == "began" for word, _ in events) < rounds + 3:  # the first ones warm up
            events.append(said.get(timeout=60))
        events.sort(key=lambda event: event[1])
        gaps = [
            (at - before) * 1000
            for (last, before), (word, at) in pairwise(events)
            if (last, word) == ("ended", "began")
        ]
        return gaps[2 : rounds + 2]
    finally:
        for process in [*pair, *processes]:
            process.terminate()
        for process in [*pair, *processes]:
            process.wait()
        for listener in listeners:
            listener.join()


def _listen(process: subprocess.Popen[str], said: queue.Queue[tuple[str, float]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        word, at = line.split()
        said.put((word, float(at)))


def main(rounds: int) -> None:
    """Print one row for each contender."""
    gaps: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as redis:
        done = 0
        while done < rounds:
            for kind in KINDS:
                gaps[kind] += turn(kind, redis.url, TURN)
            done += TURN
            print(f"\r{min(done, rounds)}/{rounds} hand-overs each", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    unit = statistics.median(gaps["python-redis-lock"])
    print(f"{'':20}{'median ms':>12}{'p95 ms':>12}{'max ms':>12}{'ratio':>10}")
    for kind, values in gaps.items():
        median, p95 = statistics.median(values), statistics.quantiles(values, n=20)[-1]
        print(f"{kind:20}{median:12.2f}{p95:12.2f}{max(values):12.2f}{median / unit:10.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
