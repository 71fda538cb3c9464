"""The wall clock, and the earlier of two clocks: with a clock that is ahead, a day would end too early."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

CLOCKS_APART = timedelta(seconds=2)
"""Difference between two clocks up to which they count as the same."""


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class LesserClock:
    """This machine's clock, less what it was ahead of the database's when they were compared last.

    Args:
        now: this machine's clock.
        database_clock: asks for the database's.
    """

    def __init__(self, now: Callable[[], datetime], database_clock: Callable[[], Awaitable[datetime]]) -> None:
        self._now = now
        self._database_clock = database_clock
        self._ahead = timedelta()

    def now(self) -> datetime:
        """The time."""
        return self._now() - self._ahead

    async def compare(self) -> None:
        """Compare the two clocks.

        Raises:
            StoreError: the database's cannot be asked for.
        """
        asked_at = self._now()
        self._ahead = max(asked_at - await self._database_clock(), timedelta())
