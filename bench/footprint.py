"""The cost of the sidecar compared with its bare libraries: `python -m bench.footprint`.

Compares the sidecar's memory and start-up time with those of a program that imports the same libraries and serves one
aiohttp handler. Compares the process of the health check with a Python process that only imports `http.client`. Also
measures the processor time and the Redis commands of an idle leader.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlencode

from redis import Redis

from bench.questions import executed_commands
from bench.report import Report, Spread, Table, progress, run
from bench.started import LIMIT, ONE, Started, bare, compile_packages, lead, sidecar
from ops.local.servers import RedisServer

STARTS, CHECKS = 15, 21
"""Number of starts of each program, and of runs of each health check."""
QUESTIONS = 500
"""Number of requests before the memory is measured: a program that has just started has not loaded all its code."""
IDLE = 30.0
"""Duration of the measurement of an idle leader, in seconds."""
WAIT = 5 / 3
"""Value of `wait` in the leader's requests, in seconds: a third of the grant."""


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of neighbouring measurements."""
    return Spread.of([mine / other for mine, other in zip(ours, theirs, strict=True)]).median


def row(title: str, form: str, theirs: Sequence[float], ours: Sequence[float], goal: float | None) -> tuple[str, ...]:
    """Return a row of the table: the spreads of both programs, their ratio, and the goal for the ratio."""
    shown = [f"{spread.median:{form}} ({spread.worst:{form}})" for spread in (Spread.of(theirs), Spread.of(ours))]
    return title, *shown, f"{ratio(ours, theirs):.2f}", "" if goal is None else f"{goal:.2f}"


def check(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a process that must succeed; returns its duration and its processor time, in milliseconds."""
    began, spent = time.perf_counter(), children_seconds()
    subprocess.run(command, env={**os.environ, **environment}, check=True)
    return (time.perf_counter() - began) * 1000, (children_seconds() - spent) * 1000


def children_seconds() -> float:
    """Return the processor time of all ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # `os.times` counts in hundredths of a second
    return used.ru_utime + used.ru_stime


def checks(server: Started, number: int) -> list[tuple[str, ...]]:
    """Measure the health check and a bare Python in turns; returns the rows of the table."""
    commands = {
        "bare": [sys.executable, "-c", "import http.client"],
        "sidecar": [sys.executable, "-m", "sidecar", "healthcheck"],
    }
    environment = {"CONTROL_BIND": f"127.0.0.1:{server.port}"}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    with progress(2 * number, "health checks", "check") as bar:
        for _ in range(number):
            for name, command in commands.items():
                found[name].append(check(command, environment))
                bar.update()
    rows = []
    for place, title in enumerate(("health check, ms", "its processor time, ms")):
        theirs, ours = ([each[place] for each in found[name]] for name in commands)
        rows.append(row(title, ".0f", theirs, ours, 1.3))
    return rows


def use(server: Started) -> None:
    """Send requests on one connection, then resign: a sidecar whose client may still act takes longer to end.

    The bare program answers the resign with the status 404.
    """
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)) as connection:
        for request in [("GET", ONE)] * QUESTIONS + [("POST", "/resign/bench")]:
            connection.request(*request, headers={"X-Lease-Client": "bench"})
            connection.getresponse().read()


def processor_share(server: Started, path: str, seconds: float) -> tuple[float, float]:
    """Send one client's requests on one connection. The server holds them, like the requests of the client library.

    Returns the processor time of the server in percent of a core, and the number of requests in 10 s.
    """
    spent, began = server.processor_seconds, time.perf_counter()
    known: dict[str, int] = {}
    requests = 0
    with (
        progress(seconds, "idle", "s") as bar,
        closing(HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)) as connection,
    ):
        while (passed := time.perf_counter() - began) < seconds:
            bar.update(round(passed) - bar.n)
            connection.request("GET", f"{path}?{urlencode({'wait': WAIT} | known)}")
            known = {"version": json.load(connection.getresponse())["version"]}
            requests += 1
    took = time.perf_counter() - began
    return (server.processor_seconds - spent) / took * 100, requests / took * 10


def idle(server: Started, redis: "Redis", seconds: float) -> Table:
    """Measure a leader with one client, and the bare handler with the same requests."""
    lead(server)
    made, began = executed_commands(redis), time.perf_counter()
    ours, requests = processor_share(server, ONE, seconds)
    commands = (executed_commands(redis) - made) / (time.perf_counter() - began) * 10
    with bare({ONE: server.get(ONE)}) as handler:
        theirs, their_requests = processor_share(handler, "/held", seconds)
    rows = (
        ("processor time, % of a core", f"{theirs:.3f}", f"{ours:.3f}", f"{ours / theirs:.2f}", "0.1 %"),
        ("requests in 10 s", f"{their_requests:.1f}", f"{requests:.1f}", "", ""),
        ("Redis commands in 10 s", "", f"{commands:.1f}", "", ""),
    )
    return Table(("idle leader with a client", "bare", "sidecar", "ratio", "goal"), rows)


def measure(*, starts: int = STARTS, number: int = CHECKS, seconds: float = IDLE) -> Report:
    """Measure starts, memory, health checks and an idle leader."""
    compile_packages()
    began: dict[str, list[float]] = {"bare": [], "sidecar": []}
    memory: dict[str, list[float]] = {"bare": [], "sidecar": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(Path(folder)) as redis_server,
        Redis.from_url(redis_server.url) as redis,
    ):
        with progress(2 * starts, "starts", "start") as bar:
            for _ in range(starts):
                for name in began:
                    with bare({ONE: "{}"}) if name == "bare" else sidecar(redis_server.url) as server:
                        began[name].append(server.seconds)
                        use(server)
                        memory[name].append(server.memory)
                    bar.update()
        with sidecar(redis_server.url) as server:
            lead(server)
            health = checks(server, number)
            idleness = idle(server, redis, seconds)
    rows = (
        row("memory, MiB", ".1f", memory["bare"], memory["sidecar"], 1.05),
        row("start, s", ".3f", began["bare"], began["sidecar"], 1.1),
        *health,
    )
    return Report(
        name="footprint",
        title="Footprint of the sidecar",
        command="python -m bench.footprint",
        text=(
            "The bare program imports the sidecar's libraries and serves one aiohttp handler; the start ends when the"
            " port listens. Memory is the proportional set size after some requests. The health check is the command"
            " of the task definition, `python -m sidecar healthcheck`; the bare one is a Python that imports"
            " `http.client` and does nothing. The idle leader has one client. Its requests are held, like the requests"
            " of the client library. The bare handler holds the same requests, so its processor time is the limit. The"
            " figures of the first table are medians, with the worst in brackets; its ratios are medians of the ratios"
            " of neighbouring measurements."
        ),
        tables=(Table(("", "bare", "sidecar", "ratio", "at most"), rows), idleness),
        versions={name: version(name) for name in ("aiohttp", "redis", "uvloop")},
    )


if __name__ == "__main__":
    run(measure, sys.argv[1:])
