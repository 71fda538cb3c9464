"""What one client may take of the service."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from runtime.listener import Limits

KEEP_ALIVE = 75.0
"""Seconds that a connection may go without a whole header: over the 60 for which a load balancer keeps its own open."""
HEADER_LIMIT = 10.0
"""Seconds that a request's header may take, from its first byte to its last."""
MOST_CONNECTIONS = 10_000
"""To one task, streams included; fewer where the process may not have so many files open."""
RESERVED_DESCRIPTORS = 64
"""Open files that connections leave to the database, the sidecar, the prices and the log."""
LARGEST_BODY = 256 * 1024
"""Bytes of a request's body."""
BODY_LIMIT = 10.0
"""Seconds that a request's body may take to come."""
ANSWER_LIMIT = 30.0
"""Seconds that an answer may take; streams have no end."""
INTERNAL_LIMITS = Limits(connections=64, per_peer=16, header=HEADER_LIMIT, idle=KEEP_ALIVE)
"""What the internal listener's connections may take; anybody in the VPC may open one."""
MOST_ROWS = 1000
"""Of history in one answer."""
MOST_STREAMS = 20
"""That one user may have open on one task."""


class TooManyStreams(Exception):
    """The user has as many streams open as there may be."""


class StreamQuota:
    """Counts each user's open streams."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._most = most
        self._open: Counter[UUID] = Counter()

    @contextmanager
    def one(self, user_id: UUID | None) -> Iterator[None]:
        """A stream for the length of the block; without a user there is no limit.

        Raises:
            TooManyStreams: not this one any more.
        """
        if user_id is None:
            yield
            return
        if self._open[user_id] >= self._most:
            raise TooManyStreams(f"{self._most} streams are open already")
        self._open[user_id] += 1
        try:
            yield
        finally:
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]
