"""The servers of the contenders. Each knows when the lease of a frozen leader expires."""

import time
from pathlib import Path
from typing import Protocol

import redis

from ops.local.servers import RedisServer


class LeaseServer(Protocol):
    """A server that holds one lease."""

    @property
    def url(self) -> str:
        """The address for the candidates."""

    async def start_beside(self) -> object:
        """Start the server; returns once it answers."""

    def stop(self) -> None:
        """Stop the server."""

    def version(self) -> tuple[str, str]:
        """Return the name and the version of the server."""

    def expiry(self, leader: int, ttl: float, renewed: float | None) -> float:
        """Return when the lease of a leader that renews no more expires, in seconds of the monotonic clock.

        Args:
            leader: the id of the leader's process, which is frozen.
            ttl: the duration of the lease in seconds.
            renewed: the time of the leader's last renewal, if the leader reports its renewals.
        """


class RedisLease(RedisServer):
    """A redis-server; the lease is a key."""

    def __init__(self, folder: Path, key: str) -> None:
        super().__init__(folder)
        self.key = key

    def version(self) -> tuple[str, str]:
        """Return "Redis" and the version of the running server."""
        with redis.Redis.from_url(self.url) as client:
            return "Redis", str(client.info("server")["redis_version"])

    def expiry(self, leader: int, ttl: float, renewed: float | None) -> float:  # noqa: ARG002 - Redis knows it
        """Return now and the rest of the key's time."""
        with redis.Redis.from_url(self.url) as client:
            left = int(client.pttl(self.key))
        if left < 0:
            raise RuntimeError(f"{self.key} does not exist, or has no expiry: {left}")
        return time.monotonic() + left / 1000
