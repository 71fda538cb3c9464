"""The turns of PUTs: one write of a user at a time, and few writes of all users together.

A write may wait for row locks in the database, and keeps its connection meanwhile. Without turns, writes that wait for
another write or for an import could leave no connection for reads.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from service.api.limits import MAX_WAITING_WRITES, MAX_WRITERS


class TooManyWrites(Exception):
    """The user has reached the limit of writes under way."""


class WriteTurns:
    """Gives each write its turn, before the write takes a database connection.

    Args:
        writers: maximum number of writes at the same time.
        per_user: maximum number of a user's writes under way, including those that wait.
    """

    def __init__(self, writers: int = MAX_WRITERS, per_user: int = MAX_WAITING_WRITES) -> None:
        self._writers = asyncio.Semaphore(writers)
        self._per_user = per_user
        self._under_way: Counter[UUID] = Counter()
        self._locks: dict[UUID, asyncio.Lock] = {}

    @asynccontextmanager
    async def turn(self, user_id: UUID) -> AsyncIterator[None]:
        """Wait for the turn of a write to a portfolio of this user. The block is the write.

        The writes of one user first wait for each other. So at most one write of each user waits for one of the
        `writers`, and turns are fair between users.

        Raises:
            TooManyWrites: the user has reached the limit.
        """
        if self._under_way[user_id] >= self._per_user:
            raise TooManyWrites(f"{self._per_user} writes to the user's portfolios are under way already")
        self._under_way[user_id] += 1
        lock = self._locks.setdefault(user_id, asyncio.Lock())
        try:
            async with lock, self._writers:
                yield
        finally:
            self._under_way[user_id] -= 1
            if not self._under_way[user_id]:
                del self._under_way[user_id], self._locks[user_id]
