"""The legs of a hand-over with the client library: `python -m bench.legs [--json FILE]`.

Two tasks, a client and a sidecar each, hand a lease over about `ROUNDS` times. `bench.leg_probe` records when each step
happens in each process. A second table has the parts that no design with these libraries can avoid: a round trip
between two processes over TCP, a request with aiohttp, and a script with redis-py.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import redis.asyncio
import uvloop

from bench.leg_probe import HOLD
from bench.report import Report, Spread, Table, progress, run
from ops.local.servers import RedisServer, free_port

ROUNDS = 200
WARM_UP = 5
"""Number of uncounted hand-overs at the start."""
REQUEST, SCRIPT = "an HTTP round trip with aiohttp, client and server", "a script with redis-py: EVAL of `return 1`"
"""Names of the parts that make up the minimum time of a hand-over."""
IDLE = 0.05
"""Seconds between two samples of a part. The processes sleep in this time, as they do before a hand-over."""


class Step(NamedTuple):
    """A step of a hand-over: its name in the records, and its process (an index of `PROCESSES`)."""

    name: str
    process: int


PROCESSES = ("old client", "new client", "old sidecar", "new sidecar")
STEPS = (
    Step("work ends", 0),
    Step("resign begins", 0),
    Step("resign arrives", 2),
    Step("script sent", 2),
    Step("notice arrives", 3),
    Step("script sent", 3),
    Step("acquire: acquired", 3),
    Step("answer made", 3),
    Step("answer read", 1),
    Step("work begins", 1),
)
LEGS = (
    "client: work's end to resign",
    "HTTP: request built, sent, parsed, routed",
    "sidecar: resign to release sent",
    "Redis: release, notice, its parsing",
    "sidecar: notice to acquire sent",
    "Redis: acquire, its reply",
    "sidecar: reply to answer made",
    "HTTP: response sent, parsed, read",
    "client: answer to work's beginning",
)


@dataclass(frozen=True)
class Records:
    """The records of the processes of one run, in this order: two clients, their sidecars."""

    steps: list[list[tuple[str, float]]]
    cpu: list[float]
    """Processor time of each process in seconds, including its start."""


def hand_overs(records: Records) -> list[list[float]]:
    """Return the times of all `STEPS` of each complete hand-over, in order."""
    events = sorted((at, name, process) for process, steps in enumerate(records.steps) for name, at in steps)
    ends = [index for index, (_, name, _) in enumerate(events) if name == "work ends"]
    found = []
    for index, following in zip(ends, [*ends[1:], len(events)], strict=True):
        times = list(_times(events[index:following], events[index][2]))
        if len(times) == len(STEPS):
            found.append(times)
    return found


def _times(events: Sequence[tuple[float, str, int]], old: int) -> Iterator[float]:
    process_of = (old, 1 - old, 2 + old, 3 - old)
    remaining = iter(events)
    for step in STEPS:
        for at, name, process in remaining:
            if (name, process) == (step.name, process_of[step.process]):
                yield at
                break


def settings(redis_url: str, port: int, instance_id: str) -> dict[str, str]:
    """Return the environment of a sidecar whose control listener has this port."""
    return {
        **os.environ, "REDIS_URL": redis_url, "LEASES": "bench", "FAILOVER_GUARD": "false", "LOG_LEVEL": "error",
        "CONTROL_BIND": f"127.0.0.1:{port}", "METRICS_BIND": f"127.0.0.1:{free_port()}", "INSTANCE_ID": instance_id,
    }  # fmt: skip


@contextmanager
def tasks(redis_url: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Two clients and their sidecars as processes, which stop at the end of the block."""
    processes: list[subprocess.Popen[str]] = []
    try:
        ports = [free_port(), free_port()]
        for number, port in enumerate(ports):
            processes.append(_probe("sidecar", environment=settings(redis_url, port, f"bench-{number}")))
        processes = [*(_probe("client", f"http://127.0.0.1:{port}") for port in ports), *processes]
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def _probe(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.leg_probe", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def record(redis_url: str, rounds: int) -> Records:
    """Let two tasks hand a lease over about `rounds` times, and return their records."""
    with tasks(redis_url) as processes, progress(rounds, "hand-overs", "round") as bar:
        for _ in range(rounds):
            time.sleep(HOLD + 0.005)
            bar.update()
        time.sleep(2)  # makes up for the time in which the processes were still starting
        found: list[dict[str, Any]] = []
        for process in processes:
            process.terminate()
            found.append(json.loads(process.communicate()[0].splitlines()[-1]))
    return Records([each["records"] for each in found], [each["cpu"] for each in found])


async def parts(redis_url: str, port: int, samples: int) -> dict[str, list[float]]:
    """Return samples of the parts of a hand-over, in seconds, each after a pause.

    Args:
        redis_url: the server.
        port: the port of a sidecar that answers `GET /leader/bench`.
        samples: the number of samples of each part.
    """
    found: dict[str, list[float]] = {}

    async def sample(name: str, action: Callable[[], Awaitable[object]]) -> None:
        await action()
        found[name] = []
        for _ in range(samples):
            await asyncio.sleep(IDLE)
            began = time.perf_counter()
            await action()
            found[name].append(time.perf_counter() - began)

    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:

        async def request() -> None:
            async with session.get(f"http://127.0.0.1:{port}/leader/bench") as response:
                await response.read()

        async with asyncio.timeout(20):
            while True:
                try:
                    await request()
                    break
                except aiohttp.ClientError:  # the sidecar has not started yet
                    await asyncio.sleep(0.05)
        await sample(REQUEST, request)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await sample(SCRIPT, lambda: client.eval("return 1", 0))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(redis_url.rsplit(":", 1)[1].split("/")[0]))

    async def ping() -> None:
        writer.write(b"PING\r\n")
        await reader.readline()

    await sample("two processes that wake each other: PING over TCP", ping)
    writer.close()
    await writer.wait_closed()
    return found


def report(records: Records, parts_found: dict[str, list[float]]) -> Report:
    """Return the tables."""
    found = hand_overs(records)[WARM_UP:]

    def row(name: str, seconds: Sequence[float]) -> tuple[str, ...]:
        spread = Spread.of([each * 1000 for each in seconds])
        return name, f"{spread.median:.3f}", f"{spread.p99:.3f}", f"{spread.worst:.3f}", str(spread.rounds)

    legs = [row(name, [times[i + 1] - times[i] for times in found]) for i, name in enumerate(LEGS)]
    whole = row("work's end to work's beginning", [times[-1] - times[0] for times in found])
    processor = statistics.mean(records.cpu[:2]), statistics.mean(records.cpu[2:])
    header = ("ms", "median", "p99", "worst", "rounds")
    least = statistics.median(parts_found[REQUEST]) + 2 * statistics.median(parts_found[SCRIPT])
    return Report(
        name="legs",
        title="The legs of a hand-over",
        command="python -m bench.legs",
        text=(
            "Two tasks hand a lease over with the client library. Each leg ends where the next one begins. A leg"
            " includes the time in which the next process wakes up."
        ),
        tables=(
            Table(
                header,
                (*legs, whole),
                f"A client used {processor[0]:.2f} s and a sidecar {processor[1]:.2f} s of processor time in all, their"
                " start included.",
            ),
            Table(
                header,
                tuple(row(name, seconds) for name, seconds in parts_found.items()),
                "Each sample follows a pause, so that caches are as cold as in a hand-over. A hand-over has one"
                " HTTP message in each task (one round trip in all), two scripts and a notice. In a hand-over,"
                " one process wakes another process six times; with python-redis-lock, four times. One round trip and"
                f" two scripts take {least * 1000:.2f} ms. This is the limit of a hand-over with these libraries,"
                " because the work's end, the release, the acquire and the work's start cannot overlap.",
            ),
        ),
        versions={name: version(name) for name in ("aiohttp", "redis", "uvloop")},
    )


def measure(rounds: int = ROUNDS) -> Report:
    """Measure the legs and the parts."""
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        records = record(server.url, rounds)
        port = free_port()
        sidecar = subprocess.Popen([sys.executable, "-m", "sidecar"], env=settings(server.url, port, "bench"))
        try:
            parts_found = uvloop.run(parts(server.url, port, max(rounds // 2, 1)))
        finally:
            sidecar.terminate()
            sidecar.wait()
    return report(records, parts_found)


if __name__ == "__main__":
    run(measure, sys.argv[1:])
