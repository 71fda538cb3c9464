"""Keeps the calendar's overrides up to date with the table `market_override`, in every task."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from runtime.escape import one_line
from service.database.connection import StoreError
from service.database.store import Store
from service.market.calendar import CALENDARS
from service.market.overrides import OverriddenCalendar
from service.outage import Outage

INTERVAL = 60.0
"""Seconds from one read of the table to the next."""
RETRY_DELAY = 1.0
"""Seconds from a failed read to the next, until the first read succeeds."""
NAME_SHOWN = 80
"""Limit of a calendar's name in the log, in characters."""

logger = logging.getLogger(__name__)


class OverrideReader:
    """Keeps a calendar's overrides equal to the table's rows.

    During a database outage, the last overrides stay in force.
    """

    def __init__(self, calendar: OverriddenCalendar, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._calendar = calendar
        self._sleep = sleep
        self.loaded = asyncio.Event()
        """Event that the first successful read sets. Until then the calendar may lack overrides."""
        self._unknown_calendars: set[str] = set()

    async def run(self, store: Store) -> None:
        """Read the table repeatedly, until cancelled."""
        outage = Outage(logger, "the calendar's overrides are not read: %s", "the calendar's overrides are read again")
        while True:
            try:
                await self.read(store)
            except StoreError as error:
                outage.failed(error)
            else:
                outage.recovered()
            await self._sleep(INTERVAL if self.loaded.is_set() else RETRY_DELAY)

    async def read(self, store: Store) -> None:
        """Read the table once."""
        self._calendar.override(await store.market_overrides(self._calendar.name))
        self.loaded.set()
        unknown = await store.overridden_calendars() - CALENDARS.keys()
        for name in sorted(unknown - self._unknown_calendars):
            known = ", ".join(CALENDARS)
            logger.error(
                "market_override: the calendar %s is unknown and its days have no effect; the known calendars are %s",
                one_line(repr(name), NAME_SHOWN),
                known,
            )
        self._unknown_calendars = unknown
