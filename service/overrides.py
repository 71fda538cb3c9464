"""Days that differ from the calendar: what an operator puts into the table `market_override`.

For closures and odd hours that no calendar knew of in advance. They count within a minute, in every task.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import date

from service.database import StoreError
from service.market import CALENDARS, DAY, Calendar, Session, midnight
from service.outage import Outage
from service.records import MarketOverride
from service.store import Store

INTERVAL = 60.0
"""Seconds from one look at the table to the next."""
RETRY_DELAY = 1.0
"""Seconds from an attempt that failed to the next, as long as none went well."""

logger = logging.getLogger(__name__)


class OverriddenCalendar(Calendar):
    """A calendar with exceptions. One without sense, such as hours of another day, makes a day without session."""

    def __init__(self, calendar: Calendar) -> None:
        self.name = calendar.name
        self._calendar = calendar
        self._overrides: Mapping[date, MarketOverride] = {}

    def session(self, day: date) -> Session | None:
        """The session of that date as overridden, or else as the calendar has it."""
        override = self._overrides.get(day)
        return self._calendar.session(day) if override is None else _session(override)

    def override(self, overrides: Mapping[date, MarketOverride]) -> None:
        """From now on these are the exceptions; each one that is new is logged."""
        for day in sorted(overrides.keys() | self._overrides.keys()):
            override = overrides.get(day)
            if override == self._overrides.get(day):
                continue
            if override is None:
                logger.warning("%s is no longer overridden", day)
            elif _session(override) is None and override.opens_at is not None:
                logger.error("%s: no session, as the overriding hours are not of that day: %s", day, override.reason)
            else:
                session = _session(override)
                hours = "no session" if session is None else f"{session.open} to {session.close}"
                logger.warning("%s is overridden: %s: %s", day, hours, override.reason)
        self._overrides = dict(overrides)


class OverrideReader:
    """Keeps a calendar's exceptions as the table has them; while the database is away, as it had them last."""

    def __init__(self, calendar: OverriddenCalendar, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._calendar = calendar
        self._sleep = sleep
        self.known = asyncio.Event()
        """Set once they have been read. Nobody should rely on the calendar before."""
        self._strangers: set[str] = set()

    async def run(self, store: Store) -> None:
        """Read, again and again, until cancelled."""
        outage = Outage(logger, "the calendar's overrides are not read: %s", "the calendar's overrides are read again")
        while True:
            try:
                await self.read(store)
            except StoreError as error:
                outage.met(error)
            else:
                outage.over()
            await self._sleep(INTERVAL if self.known.is_set() else RETRY_DELAY)

    async def read(self, store: Store) -> None:
        """Read once."""
        self._calendar.override(await store.market_overrides(self._calendar.name))
        self.known.set()
        strangers = await store.overridden_calendars() - CALENDARS.keys()
        for name in sorted(strangers - self._strangers):
            there = ", ".join(CALENDARS)
            logger.error(
                "market_override: no calendar is called %r, so its days count nowhere; there are %s", name, there
            )
        self._strangers = strangers


def _session(override: MarketOverride) -> Session | None:
    day, opens, closes = override.session_date, override.opens_at, override.closes_at
    if opens is None or closes is None:
        return None
    try:
        of_that_day = midnight(day) <= opens < closes <= midnight(day + DAY)
    except (OverflowError, TypeError):  # 'infinity', which comes without a zone
        of_that_day = False
    return Session(day, opens, closes) if of_that_day else None
