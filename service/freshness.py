"""How old a price may be: the one limit by which values are stale, when they are written and when they are read."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from service.market import Calendar
from service.records import LiveValue
from service.timetable import utc_now

STALE_AFTER = timedelta(minutes=15)
"""The age at which a price is still fresh; beyond it, it is stale."""


def is_old(at: datetime, now: datetime) -> bool:
    """Whether a price made at `at` is too old at `now` to be shown as fresh."""
    return now - at > STALE_AFTER


@dataclass(frozen=True, slots=True)
class Freshness:
    """Looks at live values by the clock: once nobody writes them any more, nobody else marks them stale."""

    calendar: Calendar
    now: Callable[[], datetime] = utc_now

    def of(self, value: LiveValue) -> LiveValue:
        """The value as it is to be shown now: stale, too, if its oldest price has become old.

        Its age is that at the last moment when the market was open: what was fresh at Friday's close is fresh all
        Sunday, and stale as Monday's session opens. A value without prices is as old as itself.
        """
        if value.stale or not is_old(value.oldest_price_at or value.as_of, self._market_time()):
            return value
        return replace(value, stale=True)

    def _market_time(self) -> datetime:
        now = self.now()
        return now if self.calendar.current(now) is not None else self.calendar.last_closed(now).close
