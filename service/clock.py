"""The wall clock, and the earlier of this machine's clock and the database's.

A daily job that relied on a clock that is ahead would begin early.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

CLOCK_TOLERANCE = timedelta(seconds=2)
"""Difference up to which two clocks count as equal."""


def utc_now() -> datetime:
    """The time of the wall clock."""
    return datetime.now(UTC)


class EarlierClock:
    """The earlier of this machine's clock and the database's, as of their last comparison.

    Args:
        now: this machine's clock.
        database_clock: reads the database's clock.
    """

    def __init__(self, now: Callable[[], datetime], database_clock: Callable[[], Awaitable[datetime]]) -> None:
        self._now = now
        self._database_clock = database_clock
        self._ahead = timedelta()

    def now(self) -> datetime:
        """The time of the earlier clock."""
        return self._now() - self._ahead

    async def compare(self) -> None:
        """Compare the two clocks.

        Raises:
            StoreError: the database's clock cannot be read.
        """
        before = self._now()
        self._ahead = max(before - await self._database_clock(), timedelta())
