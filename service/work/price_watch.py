"""What the tracker knows about its prices in the present term. The thresholds are those of the alerts."""

from collections import deque
from datetime import datetime, timedelta

FAILURES, FAILURE_PERIOD = 4, timedelta(minutes=10)
"""Threshold of the alert `PricesFail`: the number of failed queries within this time."""
UNPRICED_SHARE, UNPRICED_GRACE = 0.05, timedelta(minutes=30)
"""Threshold of the alert `SymbolsUnpriced`: more than this share of the held symbols is unpriced for this time."""


class PriceWatch:
    """The failed queries and the unpriced symbols of one term."""

    def __init__(self) -> None:
        self._failed_at = deque[datetime](maxlen=FAILURES)
        self._reason = ""
        self._unpriced = 0, 0
        self._unpriced_since: datetime | None = None

    def failed(self, reason: str, now: datetime) -> None:
        """Record a query that the source did not answer."""
        self._failed_at.append(now)
        self._reason = reason

    def counted(self, unpriced: int, held: int, now: datetime) -> None:
        """Record the number of symbols that have never had a price, and the number of all held symbols."""
        self._unpriced = unpriced, held
        if unpriced <= UNPRICED_SHARE * held:
            self._unpriced_since = None
        elif self._unpriced_since is None:
            self._unpriced_since = now

    def failure(self, now: datetime) -> str | None:
        """The reason of the last failure; None unless the source counts as failing."""
        is_failing = len(self._failed_at) == FAILURES and now - self._failed_at[0] < FAILURE_PERIOD
        return self._reason if is_failing else None

    def unpriced(self, now: datetime, opened: datetime) -> tuple[int, int] | None:
        """The last counts of unpriced and of held symbols; None unless too many have been unpriced for too long.

        The time before `opened`, when the session opened, does not count.
        """
        lasts = self._unpriced_since is not None and now - max(self._unpriced_since, opened) >= UNPRICED_GRACE
        return self._unpriced if lasts else None
