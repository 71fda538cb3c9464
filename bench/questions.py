"""Requests to the sidecar compared with a bare aiohttp handler: `python -m bench.questions`. It needs wrk.

The bare handler answers with the bytes of the sidecar's answer. The two servers take turns of one second, so that
other load affects both alike. The benchmark also measures a thousand held requests of each server.
"""

import asyncio
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from redis import Redis
from tqdm import tqdm

from bench.report import Plot, Report, Spread, Table, progress, run
from bench.started import ALL, ONE, Started, bare, compile_packages, lead, sidecar
from ops.local.servers import RedisServer

TURNS, SECONDS = 18, 1.0
"""Number of turns of each server in each case, and the duration of a turn in seconds."""
RENEWALS = 12
"""Duration of each count of Redis's commands, in units of `SECONDS`. In 12 s the lease is renewed once or twice."""
HELD, CHANGES = 1000, 5
"""Number of requests that are held at once, and number of changes that answer them all."""
CASES = ((ONE, 1), (ONE, 16), (ALL, 16))
"""Path and number of connections of each case."""
LEAST_THROUGHPUT, MOST_P99 = 0.95, 1.1
"""Goals: ratios of the sidecar to the bare handler."""


@dataclass(frozen=True)
class Load:
    """The result of one turn: times of requests in microseconds, and the number of requests that failed."""

    requests: int
    duration: float
    median: float
    p99: float
    worst: float
    errors: int


Loader = Callable[[str, int, float], Load]
"""Function that sends requests to an address over a number of connections for some seconds."""


@dataclass(frozen=True)
class Turn:
    """The result of one server's turn."""

    load: Load
    processor: float
    """Processor time of the server per request, in microseconds."""

    @property
    def throughput(self) -> float:
        """Requests a second."""
        return self.load.requests / self.load.duration * 1e6


@dataclass(frozen=True)
class Change:
    """The result of a change while requests are held: memory in MiB, the answers, and times in milliseconds."""

    memory: float
    answered: int
    first: float
    last: float
    processor: float


def by_wrk(url: str, connections: int, seconds: float) -> Load:
    """Send requests with wrk, in one thread."""
    script = str(Path(__file__).with_name("wrk.lua"))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", script, url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Load(**json.loads(done.stdout.strip().splitlines()[-1]))


def executed_commands(redis: Redis) -> int:
    """Return the number of commands that Redis has executed for the sidecar."""
    found: dict[str, dict[str, int]] = redis.info("commandstats")
    return sum(each["calls"] for name, each in found.items() if name not in ("cmdstat_info", "cmdstat_client|setinfo"))


def turn(server: Started, path: str, connections: int, seconds: float, load: Loader) -> Turn:
    """Measure a server for one turn."""
    spent = server.processor_seconds
    done = load(f"{server.url}{path}", connections, seconds)
    return Turn(done, (server.processor_seconds - spent) / max(1, done.requests) * 1e6)


def case_table(path: str, connections: int, turns: dict[str, list[Turn]]) -> Table:
    """Return the table of one case: medians of the turns, and ratios of neighbouring turns."""
    pairs = list(zip(turns["bare"], turns["sidecar"], strict=True))
    figures: tuple[tuple[str, str, Callable[[Turn], float]], ...] = (
        ("requests a second", ",.0f", lambda each: each.throughput),
        ("median, ms", ".3f", lambda each: each.load.median / 1000),
        ("99th percentile, ms", ".2f", lambda each: each.load.p99 / 1000),
        ("worst, ms", ".1f", lambda each: each.load.worst / 1000),
        ("processor time of a request, µs", ".1f", lambda each: each.processor),
    )
    rows = []
    for title, form, value in figures:
        ratios = Spread.of([value(ours) / value(theirs) if value(theirs) else 1.0 for theirs, ours in pairs])
        medians = [format(statistics.median(map(value, turns[name])), form) for name in ("bare", "sidecar")]
        rows.append((title, *medians, f"{ratios.median:.2f}", f"{min_ratio(pairs, value):.2f} to {ratios.worst:.2f}"))
    word = "connection" if connections == 1 else "connections"
    return Table(
        (f"`{path}`, {connections} {word}", "bare handler", "sidecar", "ratio", "ratios of turns"), tuple(rows)
    )


def min_ratio(pairs: Iterable[tuple[Turn, Turn]], value: Callable[[Turn], float]) -> float:
    """Return the smallest ratio of neighbouring turns."""
    return min(value(ours) / value(theirs) if value(theirs) else 1.0 for theirs, ours in pairs)


async def change(server: Started, question: str, request: str, number: int) -> Change:
    """Hold a number of requests, make the request that changes their answer, and wait for all answers."""
    connections = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(number)]
    for reader, writer in connections:
        # the answer shows that the server has accepted the connection
        writer.write(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await answer(reader)
    before = server.memory
    for _, writer in connections:
        writer.write(f"GET {question} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await asyncio.gather(*(writer.drain() for _, writer in connections))
    await asyncio.to_thread(settle, server)
    memory, spent, began = server.memory - before, server.processor_seconds, time.perf_counter()

    async def answered(reader: asyncio.StreamReader) -> float:
        return (time.perf_counter() - began) * 1000 if await answer(reader) == 200 else float("nan")

    waiting = [asyncio.create_task(answered(reader)) for reader, _ in connections]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    began = time.perf_counter()
    writer.write(f"POST {request} HTTP/1.1\r\nHost: localhost\r\nX-Lease-Client: bench\r\n\r\n".encode())
    times = [each for each in await asyncio.gather(*waiting) if each == each]
    spent = (server.processor_seconds - spent) * 1000
    for _, each in (*connections, (reader, writer)):
        each.close()
    return Change(memory, len(times), min(times), max(times), spent)


async def answer(reader: asyncio.StreamReader) -> int:
    """Read an answer; returns its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    await reader.readexactly(int(length.split(b":")[1]))
    return int(head.split(b" ")[1])


def settle(server: Started) -> None:
    """Wait until the server uses no processor time: then it has read all requests."""
    spent = -1.0
    while server.processor_seconds != spent:
        spent = server.processor_seconds
        time.sleep(0.1)


def changes(servers: dict[str, Started], number: int, rounds: int, bar: "tqdm[Any]") -> dict[str, list[Change]]:
    """Measure the servers in turns: requests are held, and a change answers them."""
    found: dict[str, list[Change]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, server in servers.items():
            if name == "bare":
                question, request = "/held", "/change"
            else:
                lead(server)
                known = json.loads(server.get(ONE))["version"]
                question, request = f"{ONE}?wait=30&version={known}", "/resign/bench"
            found[name].append(asyncio.run(change(server, question, request, number)))
            bar.update()
    return found


def change_table(found: dict[str, list[Change]], number: int) -> Table:
    """Return the table of the held requests."""
    figures: tuple[tuple[str, str, Callable[[Change], float]], ...] = (
        ("answered with the status 200, fewest", ".0f", lambda each: each.answered),
        ("memory of a held request, most, KiB", ".1f", lambda each: each.memory * 1024 / number),
        ("first answer after the change, ms", ".1f", lambda each: each.first),
        ("last answer after the change, ms", ".1f", lambda each: each.last),
        ("processor time of the change, ms", ".0f", lambda each: each.processor),
    )
    rows = []
    for title, form, value in figures:
        middle = min if "fewest" in title else max if "most" in title else statistics.median
        theirs, ours = (middle([value(each) for each in found[name]]) for name in ("bare", "sidecar"))
        rows.append((title, format(theirs, form), format(ours, form), f"{ours / theirs:.2f}" if theirs else ""))
    note = (
        "In the sidecar a client's resign is the change; in the bare handler, an `asyncio.Event` that is set. One"
        " Python process reads the answers."
    )
    return Table((f"{number} held requests", "bare handler", "sidecar", "ratio"), tuple(rows), note)


def redis_table(server: Started, load: Loader, redis: Redis, seconds: float) -> Table:
    """Return the table of Redis's commands under many requests, and under one request a second."""

    def one_a_second() -> int:
        asked, until = 0, time.monotonic() + seconds
        while time.monotonic() < until:
            server.get(ONE)
            asked += 1
            time.sleep(min(1.0, seconds / 2))
        return asked

    lead(server)
    asking = {
        "16 connections": lambda: load(f"{server.url}{ONE}", 16, seconds).requests,
        "one request a second": one_a_second,
    }
    rows = []
    for title, ask in asking.items():
        executed = executed_commands(redis)
        asked = ask()
        rows.append((title, f"{asked:,}", str(executed_commands(redis) - executed)))
    note = "The sidecar sends commands to renew its lease, and to check its connections."
    return Table((f"Redis in {seconds:g} s", "requests", "commands"), tuple(rows), note)


def measure(
    load: Loader = by_wrk, *, turns: int = TURNS, seconds: float = SECONDS, held: int = HELD, rounds: int = CHANGES
) -> Report:
    """Measure the sidecar and the bare handler in turns."""
    compile_packages()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each held request is a connection
    found: dict[tuple[str, int], dict[str, list[Turn]]] = {case: {"bare": [], "sidecar": []} for case in CASES}
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(Path(folder)) as redis_server,
        Redis.from_url(redis_server.url) as redis,
        sidecar(redis_server.url) as ours,
    ):
        lead(ours)
        with bare({path: ours.get(path) for path in (ONE, ALL)}) as theirs:
            servers = {"bare": theirs, "sidecar": ours}
            with progress(turns * len(CASES) * 2 + rounds * 2, "questions", "turn") as bar:
                for number in range(turns):
                    for path, connections in CASES:
                        for name in sorted(servers, reverse=number % 2 == 1):
                            done = turn(servers[name], path, connections, seconds, load)
                            found[path, connections][name].append(done)
                            bar.update()
                changed = changes(servers, held, rounds, bar)
            executed = redis_table(ours, load, redis, seconds * RENEWALS)
    failed = sum(each.load.errors for case in found.values() for of_server in case.values() for each in of_server)
    tables = [case_table(path, connections, each) for (path, connections), each in found.items()]
    series = {
        f"{name}, {connections} connection{'s' * (connections > 1)}": [
            (number, each.throughput) for number, each in enumerate(found[ONE, connections][name], 1)
        ]
        for connections in (1, 16)
        for name in servers
    }
    return Report(
        name="questions",
        title="Requests to the sidecar",
        command="python -m bench.questions",
        text=(
            "A sidecar that leads one lease on a real Redis answers `GET /is-leader`. The bare program imports the same"
            " libraries, and its aiohttp handler returns the bytes that the sidecar answered. wrk sends requests to"
            f" both in turns of {seconds:g} s. A ratio is the median of the ratios of neighbouring turns. The goals are"
            f" at least {LEAST_THROUGHPUT} times the throughput of the bare handler, and at most {MOST_P99} times its"
            f" 99th percentile. Requests that failed: {failed}."
        ),
        tables=(*tables, change_table(changed, held), executed),
        plots=(Plot("questions", "Throughput", "turn", "requests a second", series),),
        versions={"aiohttp": version("aiohttp"), "uvloop": version("uvloop"), "wrk": wrk_version()},
    )


def wrk_version() -> str:
    """Return wrk's version; empty without wrk."""
    if not shutil.which("wrk"):
        return ""
    return subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split()[1]


if __name__ == "__main__":
    if not shutil.which("wrk"):
        print("bench.questions: wrk is missing; Debian has it in the package wrk", file=sys.stderr)
        raise SystemExit(2)
    run(measure, sys.argv[1:])
