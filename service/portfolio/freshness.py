"""The age at which a price becomes stale: one limit for writing values and for reading them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from service.clock import CLOCK_TOLERANCE, utc_now
from service.market.calendar import Calendar
from service.portfolio.records import LiveValue

STALE_AFTER = timedelta(minutes=15)
"""Greatest age of a fresh price."""


def is_fresh(at: datetime, now: datetime) -> bool:
    """Whether a price made at `at` is fresh at `now`: neither too old nor from the future."""
    return now - at <= STALE_AFTER and not is_future(at, now)


def is_future(at: datetime, now: datetime) -> bool:
    """Whether an instant is later than `now` by more than the tolerance for clocks. If so, some clock is wrong."""
    return at - now > CLOCK_TOLERANCE


@dataclass(frozen=True, slots=True)
class Freshness:
    """Marks live values stale by the clock when they are read: once the tracker has stopped, no task updates them."""

    calendar: Calendar
    now: Callable[[], datetime] = utc_now

    def of(self, value: LiveValue) -> LiveValue:
        """The value as a client may see it now. It is stale if its oldest price is too old or from the future.

        The age counts up to the last moment when the market was open: a price that was fresh at Friday's close is fresh
        all Sunday, and stale when Monday's session opens. The age of a value without prices counts from its `as_of`.
        """
        now, priced_at = self.now(), value.oldest_price_at or value.as_of
        too_old = self._market_time(now) - priced_at > STALE_AFTER
        if value.stale or not (too_old or is_future(max(priced_at, value.as_of), now)):
            return value
        return replace(value, stale=True)

    def _market_time(self, now: datetime) -> datetime:
        return now if self.calendar.current(now) is not None else self.calendar.last_closed(now).close
