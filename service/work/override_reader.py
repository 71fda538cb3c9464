"""Keeps the calendar's overrides up to date with the table `market_override`, in every task."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from service.database.connection import StoreError
from service.database.store import Store
from service.market.calendar import CALENDARS
from service.market.overrides import OverriddenCalendar
from service.outage import Outage

INTERVAL = 60.0
"""Seconds from one read of the table to the next."""
RETRY_DELAY = 1.0
"""Seconds from a failed attempt to the next, until the first one succeeds."""

logger = logging.getLogger(__name__)


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
