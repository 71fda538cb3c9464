"""The servers of the contenders. Each server reports when the lease of a frozen leader expires."""

import json
import re
import shutil
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any, Protocol

import psutil
import redis

from bench.environments import Missing
from ops.local.servers import RedisServer, Server, free_port


class NoLease(Exception):
    """The leader has lost its lease."""


class LeaseServer(Protocol):
    """A server that stores one lease."""

    @property
    def url(self) -> str:
        """The address for the candidates."""

    def check(self) -> None:
        """Find the program of the server.

        Raises:
            Missing: the program does not exist.
        """

    async def start_beside(self) -> object:
        """Start the server; returns when the server answers."""

    def stop(self) -> None:
        """Stop the server."""

    def version(self) -> tuple[str, str]:
        """Return the name and the version of the server."""

    def expiry(self, leader: int, ttl: float, renewed: float | None) -> float:
        """Return the time at which the lease of a frozen leader expires, in seconds of the monotonic clock.

        Args:
            leader: the pid of the frozen leader.
            ttl: the duration of the lease in seconds.
            renewed: the time of the leader's last renewal, if the leader reports its renewals.

        Raises:
            NoLease: the leader has already lost the lease.
        """


class RedisLease(RedisServer):
    """A redis-server; the lease is a key."""

    def __init__(self, folder: Path, key: str) -> None:
        super().__init__(folder)
        self.key = key

    def check(self) -> None:
        """Do nothing: `ops.local` finds the program."""

    def version(self) -> tuple[str, str]:
        """Return "Redis" and the version of the running server."""
        with redis.Redis.from_url(self.url) as client:
            return "Redis", str(client.info("server")["redis_version"])

    def expiry(self, leader: int, ttl: float, renewed: float | None) -> float:  # noqa: ARG002 - the signature of `LeaseServer`
        """Return the current time plus the key's remaining time."""
        with redis.Redis.from_url(self.url) as client:
            left = int(client.pttl(self.key))
        if left < 0:
            raise NoLease(f"{self.key} does not exist, or has no expiry: {left}")
        return time.monotonic() + left / 1000


class ZooKeeperSession(Server):
    """A ZooKeeper of one server with Debian's settings; the lease is a client's session.

    The settings also allow the command `cons`, which shows the time of each client's last packet.
    """

    jar = Path("/usr/share/java/zookeeper.jar")
    logging = "/etc/zookeeper/conf"

    @property
    def url(self) -> str:
        """The address for the clients."""
        return f"127.0.0.1:{self.port}"

    def check(self) -> None:
        """Find Java and ZooKeeper."""
        if shutil.which("java") is None or not self.jar.exists():
            raise Missing("ZooKeeper is missing; Debian has it in the package zookeeper")

    def prepare(self) -> None:
        """Write the settings."""
        super().prepare()
        settings = {
            "tickTime": 2000, "initLimit": 10, "syncLimit": 5, "dataDir": self.folder / "data",
            "clientPort": self.port, "clientPortAddress": "127.0.0.1",
            "admin.enableServer": "false", "4lw.commands.whitelist": "srvr,cons",
        }  # fmt: skip
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self.folder / "zoo.cfg").write_text(text, encoding="utf-8")

    def command(self) -> list[str]:
        """The command line."""
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return ["java", "-cp", f"{self.logging}:{self.jar}", main, str(self.folder / "zoo.cfg")]

    def ready(self) -> bool:
        """Return true if the server answers."""
        try:
            return "Mode:" in self._ask("srvr")
        except OSError:
            return False

    def version(self) -> tuple[str, str]:
        """Return "ZooKeeper" and the version of the running server."""
        found = re.search(r"version: ([0-9.]+)", self._ask("srvr"))
        return "ZooKeeper", found[1] if found else "unknown"

    def expiry(self, leader: int, ttl: float, renewed: float | None) -> float:  # noqa: ARG002 - the signature of `LeaseServer`
        """Return the time of the server's last answer to the client plus the duration of the session.

        The server counts in milliseconds of Java's `nanoTime`, which is the monotonic clock on Linux.
        """
        ports = {each.laddr.port for each in psutil.Process(leader).net_connections("tcp")}
        for line in self._ask("cons").splitlines():
            found = re.match(r"\s*/127\.0\.0\.1:(\d+)\[.*,to=(\d+),.*,lresp=(\d+),", line)
            if found and int(found[1]) in ports:
                return (int(found[2]) + int(found[3])) / 1000
        raise NoLease("the leader has no session")

    def _ask(self, word: str) -> str:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(word.encode())
            with connection.makefile() as answer:
                return answer.read()


class EtcdLease(Server):
    """An etcd of one server with its defaults; the lease is etcd's lease."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._peer_port = free_port()

    @property
    def url(self) -> str:
        """The address for the clients."""
        return f"http://127.0.0.1:{self.port}"

    def check(self) -> None:
        """Find etcd."""
        if shutil.which("etcd") is None:
            raise Missing("etcd is missing; Debian has it in the package etcd-server")

    def command(self) -> list[str]:
        """The command line: loopback only."""
        peer = f"http://127.0.0.1:{self._peer_port}"
        options = {
            "data-dir": str(self.folder / "data"), "listen-client-urls": self.url, "advertise-client-urls": self.url,
            "listen-peer-urls": peer, "initial-advertise-peer-urls": peer, "initial-cluster": f"default={peer}",
        }  # fmt: skip
        return ["etcd", *(f"--{name}={value}" for name, value in options.items())]

    def ready(self) -> bool:
        """Return true if the server answers that it is healthy."""
        try:
            return bool(self._get("health")["health"] == "true")
        except OSError:
            return False

    def version(self) -> tuple[str, str]:
        """Return "etcd" and the version of the running server."""
        return "etcd", str(self._get("version")["etcdserver"])

    def expiry(self, leader: int, ttl: float, renewed: float | None) -> float:  # noqa: ARG002 - the signature of `LeaseServer`
        """Return the time of the last renewal that the leader sent plus the duration of the lease."""
        if renewed is None:
            raise NoLease("the leader has reported no renewal")
        return renewed + ttl

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
