"""Limits of the listeners: connections, requests, answers, and the open streams of one user."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from runtime.listener import Limits

KEEP_ALIVE = 75.0
"""Limit for an idle connection, in seconds; longer than a load balancer's idle limit of 60 s."""
HEADER_LIMIT = 10.0
"""Limit for a request's header from its first byte to its last, in seconds."""
MAX_CONNECTIONS = 10_000
"""Limit of connections to one task, streams included; lower if the process may not open as many files."""
STREAMS_SHARE = 0.90
"""Share of the connections that streams may use. The rest serve short requests and health checks. Without the rest, a
task with many streams would fail its health check, and the platform would end the task with all its streams."""
RESERVED_DESCRIPTORS = 64
"""File descriptors that are reserved for the database, the sidecar, the price source and the log."""
MAX_BODY = 256 * 1024
"""Limit of a request's body, in bytes."""
BODY_LIMIT = 10.0
"""Limit for a request's body to arrive, in seconds."""
ANSWER_LIMIT = 30.0
"""Limit for an answer, in seconds; streams have none."""
INTERNAL_LIMITS = Limits(connections=64, per_peer=16, header=HEADER_LIMIT, idle=KEEP_ALIVE)
"""Limits of the internal listener's connections.

Each peer has its own limit too, because every host in the VPC may connect.
"""
MAX_ROWS = 1000
"""Limit of the history rows in one answer."""
MAX_STREAMS = 20
"""Limit of a user's open streams on one task."""
MAX_WRITERS = 3
"""Limit of the database connections that PUTs use at the same time on one task. HTTP has five; reads use the others."""
MAX_WAITING_WRITES = 100
"""Limit of a user's PUTs under way on one task: one writes, and the others wait for it."""


class TooManyStreams(Exception):
    """The user has reached the limit of open streams."""


class StreamQuota:
    """Counts each user's open streams."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self._limit = limit
        self._open: Counter[UUID] = Counter()

    @contextmanager
    def counted(self, user_id: UUID | None) -> Iterator[None]:
        """Count a stream for the length of the block. Without a user there is no limit.

        Raises:
            TooManyStreams: the user has reached the limit.
        """
        if user_id is None:
            yield
            return
        if self._open[user_id] >= self._limit:
            raise TooManyStreams(f"{self._limit} streams are open already")
        self._open[user_id] += 1
        try:
            yield
        finally:
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]
