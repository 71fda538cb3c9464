"""How old a price may be: the one limit by which values are stale, when they are written and when they are read."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from service.clock import CLOCKS_APART, utc_now
from service.market.calendar import Calendar
from service.portfolio.records import LiveValue

STALE_AFTER = timedelta(minutes=15)
"""The age at which a price is still fresh; beyond it, it is stale."""


def is_fresh(at: datetime, now: datetime) -> bool:
    """Whether a price made at `at` may be shown as fresh at `now`: it is neither too old nor of the future."""
    return now - at <= STALE_AFTER and not is_future(at, now)


def is_future(at: datetime, now: datetime) -> bool:
    """Whether an instant is later than `now` by more than clocks differ: somebody's clock is wrong."""
    return at - now > CLOCKS_APART


@dataclass(frozen=True, slots=True)
class Freshness:
    """Looks at live values by the clock: once nobody writes them any more, nobody else marks them stale."""

    calendar: Calendar
    now: Callable[[], datetime] = utc_now

    def of(self, value: LiveValue) -> LiveValue:
        """The value as it is to be shown now: stale, too, if its oldest price is old or it is of the future.

        Its age is that at the last moment when the market was open: what was fresh at Friday's close is fresh all
        Sunday, and stale as Monday's session opens. A value without prices is as old as itself.
        """
        now, priced_at = self.now(), value.oldest_price_at or value.as_of
        too_old = self._market_time(now) - priced_at > STALE_AFTER
        if value.stale or not (too_old or is_future(max(priced_at, value.as_of), now)):
            return value
        return replace(value, stale=True)

    def _market_time(self, now: datetime) -> datetime:
        return now if self.calendar.current(now) is not None else self.calendar.last_closed(now).close
