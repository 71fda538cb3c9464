"""Processes that a test starts, and ends with a signal: sidecars, services and other programs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import aiohttp

from ops.local.servers import RedisServer, free_port
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
LIMIT = 60.0
"""Limit for a process to start or to end on a busy machine, in seconds."""


def clean_environment(**settings: str) -> dict[str, str]:
    """The settings, and the variables of this process's environment that every program needs."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    return {**kept, "PYTHONPATH": str(ROOT), **settings}


class Process:
    """A Python program with a clean environment, whose output goes to a file.

    A descriptor in `outputs`, under the name `stdout` or `stderr`, replaces the file.

    The async context manager starts the program and, at the end of the block, kills it if it still runs.
    """

    def __init__(self, log: Path, arguments: Sequence[str], **environment: str) -> None:
        self.environment = environment
        self.outputs: dict[str, int] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._log = log
        self._arguments = arguments

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._arguments],
                cwd=ROOT,
                env=clean_environment(**self.environment),
                stdin=subprocess.DEVNULL,
                stdout=self.outputs.get("stdout", log),
                stderr=self.outputs.get("stderr", log),
            )

    @property
    def started(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: int = signal.SIGTERM) -> None:
        """Send a signal; do nothing if the process has ended."""
        with suppress(ProcessLookupError):
            self.started.send_signal(number)

    def stop(self, number: int) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        self.send(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end, and return the exit status. After `LIMIT`, kill the process and raise `TimeoutExpired`."""
        try:
            return self.started.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    async def end(self) -> int:
        """Wait for the end while the event loop runs, and return the exit status."""
        await eventually(lambda: not self.is_running, within=LIMIT)
        return self.wait()

    def kill(self) -> None:
        """Kill the process if it still runs, even if SIGSTOP has suspended it."""
        if self.is_running:
            self.send(signal.SIGKILL)
            self.started.wait()

    @property
    def output(self) -> str:
        return self._log.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """The log. Every line must be a JSON object."""
        return [json.loads(line) for line in self.output.splitlines()]

    def messages(self) -> list[str]:
        return [line["message"] for line in self.lines()]


def command_of(module: str, log: Path, *words: str, **settings: str) -> Process:
    """The process `python -m MODULE WORDS`, not yet started."""
    return Process(log, ["-m", module, *words], **settings)


@contextmanager
def killed_at_exit(*processes: Process) -> Iterator[None]:
    """Kill the processes at the end of the block."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()


class Sidecar(Process):
    """`python -m sidecar` on its own ports.

    It keeps the lead even if the machine stands still for four seconds. It needs no failover guard, since its Redis has
    only just started and has lost no write.
    """

    def __init__(self, log: Path, redis_url: str, name: str, **settings: str) -> None:
        port, metrics_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        defaults = {
            "REDIS_URL": redis_url,
            "INSTANCE_ID": name,
            "FAILOVER_GUARD": "false",
            "GRANT_TTL": "10",
            "REDIS_TIMEOUT": "5",
            "CONTROL_BIND": f"127.0.0.1:{port}",
            "METRICS_BIND": f"127.0.0.1:{metrics_port}",
        }
        super().__init__(log, ["-m", "sidecar"], **(defaults | settings))


class RealSidecar(Sidecar):
    """A sidecar with the default timings and one lease, whose key no other test uses."""

    def __init__(self, folder: Path, redis: RedisServer, name: str, **settings: str) -> None:
        defaults = {
            "LEASES": "background_services",
            "LEASE_KEY": f"{folder.name}:{{name}}",
            "GRANT_TTL": "",
            "REDIS_TIMEOUT": "",
        }
        super().__init__(folder / f"{name}.log", redis.url, name, **(defaults | settings))


SHORT_LEASE = {"LEASE_TTL": "6", "HEARTBEAT_INTERVAL": "1", "GRANT_TTL": "3", "REDIS_TIMEOUT": "0.4"}
"""Settings of a sidecar that leads for at most 5 s without Redis."""


class Service(Process):
    """`python -m service` on its own ports."""

    def __init__(self, log: Path, session: aiohttp.ClientSession, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.internal_url = f"http://127.0.0.1:{free_port()}"
        self.session = session
        defaults = {
            "MARKET_CALENDAR": "24/7",
            "TRACKER_INTERVAL": "0.2",
            "API_BIND": f"127.0.0.1:{self.port}",
            "INTERNAL_BIND": self.internal_url.removeprefix("http://"),
            "AUTH": "off",
            "PRICE_SOURCE": "simulated",
        }
        super().__init__(log, ["-m", "service"], **(defaults | settings))

    async def __aenter__(self) -> Self:
        self.start()
        await eventually(self.healthy, within=LIMIT)
        return self

    async def get(self, path: str) -> Any:
        """The JSON of a 200 answer of the public listener."""
        return await self._ask(self.url + path)

    async def get_internal(self, path: str) -> Any:
        """The JSON of a 200 answer of the internal listener."""
        return await self._ask(self.internal_url + path)

    async def _ask(self, url: str) -> Any:
        async with self.session.get(url) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def healthy(self) -> bool:
        assert self.is_running, self.output
        async with self.session.get(self.url + "/healthz") as response:
            return response.status == 200

    async def leads(self, lease: str = "background_services") -> bool:
        status = await self.get_internal("/background/status")
        return bool(status["leases"][lease]["is_leader"])


async def get_json(url: str) -> dict[str, Any]:
    """The JSON object of a 200 answer to a GET of `url`; empty if there is no such answer."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            shown: dict[str, Any] = await response.json() if response.status == 200 else {}
            return shown
    except aiohttp.ClientError:
        return {}
