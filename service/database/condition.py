"""The condition of the database: whether it takes writes, and what its clock shows."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_client import Gauge

from service.clock import CLOCK_TOLERANCE
from service.outage import Outage

MAX_ANSWER_TIME = timedelta(seconds=2)
"""Maximum duration of the query; after a slower answer the clocks are not compared."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition that one session reported."""

    standby: bool
    read_only: bool
    clock: datetime
    asked_at: datetime
    """Time before the query, by this machine's clock."""
    answered_at: datetime
    """Time after the answer, by this machine's clock."""

    @property
    def trouble(self) -> str | None:
        """Why the database takes no writes; None if it takes them."""
        if self.standby:
            return "read-only: DATABASE_URL leads to a standby"
        if self.read_only:
            return "read-only: default_transaction_read_only is on; providers set it when the disk is full"
        return None

    @property
    def clock_lead(self) -> timedelta | None:
        """How far this machine's clock is ahead of the database's.

        None if the answer was too slow, or if this machine's clock was set back during the query.
        """
        took = self.answered_at - self.asked_at
        if not timedelta() <= took <= MAX_ANSWER_TIME:
            return None
        clock_lead = self.asked_at + took / 2 - self.clock
        return timedelta() if abs(clock_lead) <= took / 2 else clock_lead


class ClockWatch:
    """Reports how far this machine's clock is ahead of the database's."""

    def __init__(self, ahead_seconds: Gauge) -> None:
        self.difference: timedelta | None = None
        """How far this machine's clock is ahead of the database's; None if they differ by at most `CLOCK_TOLERANCE`."""
        self._ahead_seconds = ahead_seconds
        self._outage = Outage(
            logger,
            "this machine's clock differs from the database's by %s: live values may count as stale",
            "this machine's clock agrees with the database's again",
        )

    def compare(self, clock_lead: timedelta | None) -> None:
        """Record one comparison; `clock_lead` is None if the clocks could not be compared."""
        if clock_lead is None:
            return
        self._ahead_seconds.set(clock_lead.total_seconds())
        self.difference = clock_lead if abs(clock_lead) > CLOCK_TOLERANCE else None
        if self.difference is not None:
            self._outage.failed(f"{clock_lead.total_seconds():+.1f} s")
        else:
            self._outage.recovered()
