"""Real sidecars and programs beside them, as child processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from ops.local.servers import RedisServer, free_port

ROOT = Path(__file__).parents[2]


class Process:
    """A child process; its output goes to a file for whoever looks why a test failed."""

    def __init__(self, log: Path, arguments: list[str], **environment: str) -> None:
        self._log = log
        self._arguments = arguments
        self._environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._environment |= environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._arguments],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: signal.Signals) -> int:
        """End the process by `number`; returns its exit status."""
        self.send(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end, which a test has seen to, and force it after a minute; returns its exit status."""
        assert self.process is not None
        process, self.process = self.process, None
        try:
            return process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    @property
    def output(self) -> str:
        return self._log.read_text()


class RealSidecar(Process):
    """`python -m sidecar`, holding one lease under a key of the test's own."""

    def __init__(self, folder: Path, redis: RedisServer, name: str, **environment: str) -> None:
        port, metrics_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        super().__init__(
            folder / f"{name}.log",
            ["-m", "sidecar"],
            REDIS_URL=redis.url,
            INSTANCE_ID=name,
            CONTROL_BIND=f"127.0.0.1:{port}",
            METRICS_BIND=f"127.0.0.1:{metrics_port}",
            LEASES="background_services",
            LEASE_KEY=f"{folder.name}:{{name}}",
            FAILOVER_GUARD="false",  # this Redis has only just been started, and nothing was lost
            LOG_LEVEL="INFO",
            **environment,
        )


@contextmanager
def ended(*processes: Process) -> Iterator[None]:
    """Nothing is left running, frozen ones included."""
    try:
        yield
    finally:
        for process in processes:
            if process.process is not None:
                process.send(signal.SIGCONT)
                process.stop(signal.SIGKILL)


async def shows(url: str) -> dict[str, Any]:
    """The JSON object that a GET of `url` is answered with; empty while there is no such answer."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            shown: dict[str, Any] = await response.json() if response.status == 200 else {}
            return shown
    except aiohttp.ClientError:
        return {}
