"""The sidecar and the bare program as processes of a benchmark."""

import compileall
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import psutil

from ops.local.servers import free_port

ONE, ALL = "/is-leader/bench", "/is-leader"
"""Paths of the requests for the sidecar's one lease, and for all its leases."""
LIMIT = 30.0
"""Timeout for a start, and for the first term, in seconds."""


@dataclass(frozen=True)
class Started:
    """A server process that listens on a port of 127.0.0.1."""

    process: psutil.Process
    port: int
    seconds: float
    """Seconds from the start of the process until it listened."""

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def processor_seconds(self) -> float:
        """Processor time of all threads of the process so far."""
        try:
            files = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
            return sum(int(file.read_text().split()[0]) for file in files) / 1e9
        except OSError:  # a kernel without schedstat: the resolution is a hundredth of a second
            times = self.process.cpu_times()
            return times.user + times.system

    @property
    def memory(self) -> float:
        """Memory of the process in MiB: its own pages, and its share of pages that several processes use (PSS)."""
        return float(self.process.memory_full_info().pss) / 2**20

    def get(self, path: str) -> str:
        """Return the body of the answer to a GET."""
        with urlopen(f"{self.url}{path}", timeout=LIMIT) as answer:
            body: bytes = answer.read()
        return body.decode()


def compile_packages() -> None:
    """Compile the sidecar's own packages to bytecode, as its image does."""
    for package in ("runtime", "sidecar"):
        compileall.compile_dir(package, quiet=1)


@contextmanager
def sidecar(redis_url: str) -> Iterator[Started]:
    """Run a sidecar with its default settings, but without the failover guard, because Redis has just started."""
    port = free_port()
    settings = {
        "REDIS_URL": redis_url, "LEASES": "bench", "FAILOVER_GUARD": "false", "LOG_LEVEL": "error",
        "CONTROL_BIND": f"127.0.0.1:{port}", "METRICS_BIND": f"127.0.0.1:{free_port()}", "INSTANCE_ID": "bench",
    }  # fmt: skip
    with _started([sys.executable, "-m", "sidecar"], port, settings) as started:
        yield started


@contextmanager
def bare(answers: Mapping[str, str]) -> Iterator[Started]:
    """Run the bare program with a body for each path."""
    port = free_port()
    with _started([sys.executable, "-m", "bench.bare", str(port), json.dumps(answers)], port, {}) as started:
        yield started


def lead(server: Started) -> None:
    """Send requests until the sidecar leads.

    Raises:
        TimeoutError: the sidecar does not lead in time.
    """
    until = time.monotonic() + LIMIT
    while not json.loads(server.get(ONE))["is_leader"]:
        if time.monotonic() > until:
            raise TimeoutError("the sidecar does not lead")
        time.sleep(0.01)


@contextmanager
def _started(command: list[str], port: int, settings: Mapping[str, str]) -> Iterator[Started]:
    began = time.perf_counter()
    with subprocess.Popen(command, env={**os.environ, **settings}, stdout=subprocess.DEVNULL) as process:
        try:
            while not _listens(port):
                if process.poll() is not None or time.perf_counter() - began > LIMIT:
                    raise TimeoutError(f"{command[2]} does not listen")
                time.sleep(0.001)
            yield Started(psutil.Process(process.pid), port, time.perf_counter() - began)
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
