"""The whole hand-over of a deploy: `python -m bench.deploy [ROUNDS]`.

Runs the two tasks of `make run` with their own ports and folder. Each round stops the leader's API with SIGTERM, as ECS
does in a deploy. The time without work begins at the log line for the end of the old work, just before the resign. It
ends at the log line for the start of the new work. The times in the logs are whole milliseconds.
"""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import psutil

LEASE = "background_services"
OFFSET = 20_000


def leader(apis: list[int]) -> int | None:
    """Return the task whose API reports `is_leader`."""
    for number, port in enumerate(apis):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/background/status", timeout=2) as answer:
                if json.load(answer)["leases"][LEASE]["is_leader"]:
                    return number
        except OSError:
            continue
    return None


def api_process(runner: psutil.Process, port: int) -> psutil.Process:
    """Return the API process that listens on the port."""
    for process in runner.children(recursive=True):
        if any(c.laddr.port == port and c.status == "LISTEN" for c in process.net_connections("tcp")):
            return process
    raise SystemExit(f"no API listens on {port}")


def gaps(folder: Path) -> list[float]:
    """Return the durations of the times without work, in ms, from the logs."""
    events: list[tuple[float, str]] = []
    for log in folder.glob("logs/*-api.log"):
        events += [
            (datetime.fromisoformat(line.split()[0]).timestamp(), what.group(1))
            for line in log.read_text().splitlines()
            if LEASE in line and (what := re.search(r"the work (has ended|begins)", line))
        ]
    events.sort()
    return [
        (after - at) * 1000
        for (at, what), (after, next_one) in pairwise(events)
        if (what, next_one) == ("has ended", "begins")
    ]


def main(rounds: int) -> None:
    """Print the figures."""
    apis = [9101 + OFFSET, 9201 + OFFSET]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "RUN_FOLDER": name, "RUN_PORT_OFFSET": str(OFFSET), "RUN_TASKS": "2"}
        run = subprocess.Popen([sys.executable, "-m", "ops.local"], env=environment, stdout=subprocess.DEVNULL)
        try:
            runner = psutil.Process(run.pid)
            while len(gaps(folder)) < rounds:
                if run.poll() is not None:
                    raise SystemExit("make run has ended")
                both_answer = all(_healthy(port) for port in apis)
                leads = leader(apis) if both_answer else None
                if leads is None:
                    time.sleep(0.2)
                    continue
                before = len(gaps(folder))
                api_process(runner, apis[leads]).send_signal(signal.SIGTERM)
                while len(gaps(folder)) == before:
                    time.sleep(0.05)
                print(f"\r{before + 1}/{rounds} deploys", end="", file=sys.stderr, flush=True)
            print(file=sys.stderr)
        finally:
            run.send_signal(signal.SIGINT)
            run.wait()
        values = gaps(folder)
    median, worst = statistics.median(values), max(values)
    print(f"time without work: median {median:.0f} ms, max {worst:.0f} ms, of {len(values)} deploys")


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(json.load(answer)["sidecar"] == "ok")
    except OSError:
        return False


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
