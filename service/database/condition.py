"""What the database says of itself when it is asked: whether it takes writes, and what its clock shows."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_client import Gauge

from service.clock import CLOCKS_APART
from service.outage import Outage

SLOW_ANSWER = timedelta(seconds=2)
"""Time of an answer beyond which it says nothing of the clock."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Condition:
    """What one session said."""

    standby: bool
    read_only: bool
    clock: datetime
    asked_at: datetime
    """By this machine's clock, as the next."""
    answered_at: datetime

    @property
    def trouble(self) -> str | None:
        """Why the database takes no writes; None if it takes them."""
        if self.standby:
            return "read-only: DATABASE_URL leads to a standby"
        if self.read_only:
            return "read-only: default_transaction_read_only is on, as providers set it when the disk is full"
        return None

    @property
    def ahead(self) -> timedelta | None:
        """How far this machine's clock is ahead of the database's; None if the answer was too slow to tell."""
        took = self.answered_at - self.asked_at
        if not timedelta() <= took <= SLOW_ANSWER:
            return None
        ahead = self.asked_at + took / 2 - self.clock
        return timedelta() if abs(ahead) <= took / 2 else ahead


class ClockWatch:
    """Reports how far this machine's clock is ahead of the database's."""

    def __init__(self, ahead_seconds: Gauge) -> None:
        self._ahead_seconds = ahead_seconds
        self._outage = Outage(
            logger,
            "this machine's clock differs from the database's by %s: live values may count as stale",
            "this machine's clock agrees with the database's again",
        )

    def compare(self, ahead: timedelta | None) -> None:
        """Record a comparison of the two."""
        if ahead is None:
            return
        self._ahead_seconds.set(ahead.total_seconds())
        if abs(ahead) > CLOCKS_APART:
            self._outage.met(f"{ahead.total_seconds():+.1f} s")
        else:
            self._outage.over()
