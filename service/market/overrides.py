"""Days that differ from the calendar: the rows that an operator adds to the table `market_override`.

Overrides are for closures and odd hours that were not known in advance. They take effect within a minute, in every
task.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from runtime.escape import one_line
from service.market.calendar import DAY, Calendar, Session, midnight

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MarketOverride:
    """A day that differs from the calendar: other hours, or no session if both times are None."""

    session_date: date
    opens_at: datetime | None
    closes_at: datetime | None
    reason: str


class OverriddenCalendar(Calendar):
    """A calendar with overrides. A day with an invalid override, such as hours of another day, has no session."""

    def __init__(self, calendar: Calendar) -> None:
        self.name = calendar.name
        self._calendar = calendar
        self._overrides: Mapping[date, MarketOverride] = {}

    def session(self, day: date) -> Session | None:
        """The session of that date, from the override if there is one, else from the calendar."""
        override = self._overrides.get(day)
        return self._calendar.session(day) if override is None else _session(override)

    def override(self, overrides: Mapping[date, MarketOverride]) -> None:
        """Replace the overrides, and log each change."""
        for day in sorted(overrides.keys() | self._overrides.keys()):
            override = overrides.get(day)
            if override == self._overrides.get(day):
                continue
            reason = "" if override is None else one_line(override.reason)
            if override is None:
                logger.warning("%s is no longer overridden", day)
            elif _session(override) is None and override.opens_at is not None:
                logger.error("%s: no session, because the overriding hours are of another day: %s", day, reason)
            else:
                session = _session(override)
                hours = "no session" if session is None else f"{session.open} to {session.close}"
                logger.warning("%s is overridden: %s: %s", day, hours, reason)
        self._overrides = dict(overrides)


def _session(override: MarketOverride) -> Session | None:
    day, opens, closes = override.session_date, override.opens_at, override.closes_at
    if opens is None or closes is None:
        return None
    try:
        of_that_day = midnight(day) <= opens < closes <= midnight(day + DAY)
    except (OverflowError, TypeError):  # asyncpg reads 'infinity' as an instant without a time zone
        of_that_day = False
    return Session(day, opens, closes) if of_that_day else None
