"""Whole processes for the tests: `python -m service` and `python -m sidecar`, started, watched and ended by signals."""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import aiohttp

from ops.local.servers import free_port
from tests.support.waiting import eventually

ROOT = Path(__file__).parent.parent.parent
START_LIMIT = 60.0
"""Seconds that the start of a process, or its end, may take where the machine is busy."""


def clean_environment(**settings: str) -> dict[str, str]:
    """Ours without whatever the developer has set for the service, plus the settings."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    return {**kept, "PYTHONPATH": str(ROOT), **settings}


class Process:
    """One `python -m MODULE`; an async context manager that leaves nothing running. Its log is JSON lines."""

    def __init__(self, module: str, log: Path, *arguments: str, **settings: str) -> None:
        self.module = module
        self.log = log
        self.arguments = arguments
        self.settings = settings
        self.child: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        with self.log.open("ab") as log:
            self.child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self.module,
                *self.arguments,
                env=clean_environment(**self.settings),
                stdout=log,
                stderr=log,
            )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.running.returncode is None:
            self.running.kill()
            await self.running.wait()

    @property
    def running(self) -> asyncio.subprocess.Process:
        assert self.child is not None
        return self.child

    def signal(self, number: int = signal.SIGTERM) -> None:
        # Not send_signal, which polls: it may reap the child before the event loop does, and the status is lost.
        with suppress(ProcessLookupError):
            os.kill(self.running.pid, number)

    async def end(self) -> int:
        """Wait for the exit, and return the status."""
        async with asyncio.timeout(START_LIMIT):
            return await self.running.wait()

    def output(self) -> str:
        return self.log.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """What it logged; every line must be a JSON object."""
        return [json.loads(line) for line in self.output().splitlines()]

    def messages(self) -> list[str]:
        return [line["message"] for line in self.lines()]


class Service(Process):
    """The API, on a port of its own."""

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
        super().__init__("service", log, **(defaults | settings))

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await eventually(self.healthy, within=START_LIMIT)
        return self

    async def get(self, path: str) -> Any:
        """The JSON of an answer of the public listener that is 200."""
        return await self._ask(self.url + path)

    async def get_internal(self, path: str) -> Any:
        """The JSON of an answer of the internal listener that is 200."""
        return await self._ask(self.internal_url + path)

    async def _ask(self, url: str) -> Any:
        async with self.session.get(url) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def healthy(self) -> bool:
        assert self.running.returncode is None, self.output()
        async with self.session.get(self.url + "/healthz") as response:
            return response.status == 200

    async def leads(self, lease: str = "background_services") -> bool:
        status = await self.get_internal("/background/status")
        return bool(status["leases"][lease]["is_leader"])


class Sidecar(Process):
    """The real sidecar, on its own ports; a machine that stands still for four seconds takes the lead from nobody."""

    def __init__(self, log: Path, redis_url: str, name: str, **settings: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        defaults = {
            "REDIS_URL": redis_url,
            "INSTANCE_ID": name,
            "FAILOVER_GUARD": "false",
            "GRANT_TTL": "10",
            "REDIS_TIMEOUT": "5",
            "CONTROL_BIND": self.url.removeprefix("http://"),
            "METRICS_BIND": f"127.0.0.1:{free_port()}",
        }
        super().__init__("sidecar", log, **(defaults | settings))
