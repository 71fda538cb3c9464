"""The load balancer in front of the APIs: haproxy, which is controlled as ECS controls a target group.

A new target gets no request before its first health check has passed. A deregistered target gets no new request. Its
open requests can still finish during the deregistration delay.
"""

import asyncio
import csv
from collections.abc import Iterator
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Self

from ops.local.containers import Journal
from ops.local.server import Server, ServerError
from ops.rehearse.network import BALANCER

PORT = 80
TARGET_PORT = 8080
SLOTS = 250
LOOK_EVERY = 0.25

CONFIGURATION = """
global
    stats socket {socket} mode 600 level admin
    maxconn 4000
    log stdout format raw local0

defaults
    mode http
    log global
    option httplog
    timeout connect 3s
    timeout check 3s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    retries 0
    http-reuse always

frontend public
    bind {address}:{port}
    default_backend api

backend api
    balance roundrobin
    source {address}
    option httpchk GET /healthz
    http-check expect status 200
    server-template target 1-{slots} {address}:9 check inter 2s fastinter 1s downinter 1s fall 3 rise 2 disabled
"""
"""haproxy's configuration.

Like an Application Load Balancer, haproxy sends no request twice, and each connection to an API can serve any client.
"""


class Health(StrEnum):
    """The states of a target, with the names of Elastic Load Balancing."""

    INITIAL = "initial"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"


class Target:
    """One registered address of a task."""

    def __init__(self, slot: str, label: str) -> None:
        self.slot = slot
        self.label = label
        self.health = Health.INITIAL


class Haproxy(Server):
    """The haproxy process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, port=PORT)
        self.socket = folder / "haproxy.socket"

    def command(self) -> list[str]:
        """The command line."""
        return ["haproxy", "-db", "-f", str(self.folder / "haproxy.cfg")]

    def prepare(self) -> None:
        """Write its configuration."""
        super().prepare()
        text = CONFIGURATION.format(socket=self.socket, address=BALANCER, port=PORT, slots=SLOTS)
        (self.folder / "haproxy.cfg").write_text(text)

    def ready(self) -> bool:
        """Return true if the command socket exists, since haproxy listens by then."""
        return self.socket.exists()


class Balancer:
    """The load balancer's targets; an async context manager that runs haproxy."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self._server = Haproxy(folder)
        self._journal = journal
        self._targets: dict[str, Target] = {}
        self._next = 0

    async def __aenter__(self) -> Self:
        await self._server.start_beside()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.stop()

    async def register(self, label: str, address: str) -> Target:
        """Begin to check a task's health. The task gets requests once it is healthy."""
        self._next += 1
        target = Target(f"target{self._next}", label)
        await self._command(f"set server api/{target.slot} addr {address} port {TARGET_PORT}")
        await self._command(f"set server api/{target.slot} state drain")
        self._targets[target.slot] = target
        return target

    async def drain(self, target: Target) -> None:
        """Send no new request to the target."""
        target.health = Health.DRAINING
        await self._command(f"set server api/{target.slot} state drain")

    async def remove(self, target: Target) -> None:
        """End the open connections of the target, and remove it."""
        target.health = Health.DRAINING
        self._targets.pop(target.slot, None)
        await self._command(f"set server api/{target.slot} state maint")
        await self._command(f"shutdown sessions server api/{target.slot}")

    async def watch(self) -> None:
        """Update the targets' health until cancelled."""
        while True:
            for slot, status, check in _rows(await self._command("show stat")):
                target = self._targets.get(slot)
                if target is not None:
                    await self._update(target, status, check)
            await asyncio.sleep(LOOK_EVERY)

    async def _update(self, target: Target, status: str, check: str) -> None:
        match target.health:
            case Health.INITIAL if check == "L7OK" and status.startswith("DRAIN"):
                await self._command(f"set server api/{target.slot} state ready")
                target.health = Health.HEALTHY
            case Health.HEALTHY if status.startswith("DOWN"):
                target.health = Health.UNHEALTHY
                self._journal.event(target.label, f"its target is unhealthy ({check})")
            case Health.UNHEALTHY if status.startswith("UP"):
                target.health = Health.HEALTHY
                self._journal.event(target.label, "its target is healthy again")
            case _:
                pass

    async def _command(self, text: str) -> str:
        try:
            reader, writer = await asyncio.open_unix_connection(self._server.socket)
        except OSError as error:
            raise ServerError(f"haproxy does not answer: {error.strerror}") from error
        try:
            writer.write(f"{text}\n".encode())
            answer = (await reader.read()).decode()
        finally:
            writer.close()
        return answer


def _rows(table: str) -> Iterator[tuple[str, str, str]]:
    """Return name, status and last check of each server in `show stat`; an asterisk marks a check under way."""
    for row in csv.DictReader(StringIO(table.removeprefix("# "))):
        if row["svname"].startswith("target"):
            yield row["svname"], row["status"], row["check_status"].removeprefix("* ")
