"""Live values for the clients of streams, on leaders and followers.

Each process has one reader. On a notification it reads the values of all subscribed portfolios in one query, and gives
each subscriber the latest value. A slow subscriber skips values, and does not delay the others. A value that becomes
stale because no newer value follows is sent again as stale. Only the clock decides this, since the database may be
down.

Each value is read together with its portfolio's owner. A stream ends when the portfolio is deleted or belongs to
another user, and shows no value that was written after this change. The reader checks the owner when the database
notifies of a change of owners, at each new value, and every `OWNER_INTERVAL` seconds.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

from service.database.connection import StoreError
from service.database.store import Store
from service.outage import Outage
from service.portfolio.freshness import Freshness
from service.portfolio.records import LiveValue
from service.telemetry import HttpMetrics

RETRY_DELAY = 1.0
"""Time from a failed read to the next, in seconds."""
AGE_INTERVAL = 30.0
"""Time between two checks of the age of the values that were sent, in seconds."""
OWNER_INTERVAL = 30.0
"""Time between two checks of the owners without a notification, in seconds."""

logger = logging.getLogger(__name__)


class Subscriber:
    """A client of a stream, with at most one value that it has not received yet."""

    def __init__(self, freshness: Freshness, user_id: UUID | None) -> None:
        self._freshness = freshness
        self._user_id = user_id
        self._latest: LiveValue | None = None
        self._last_shown: LiveValue | None = None
        self._ended = False
        self._wake = asyncio.Event()

    def offer(self, value: LiveValue) -> None:
        """Replace the value that waits for the client."""
        self._latest = value
        self._wake.set()

    def may_see(self, owner: UUID) -> bool:
        """Whether the client may see that user's portfolios."""
        return self._user_id is None or self._user_id == owner

    def refresh(self) -> None:
        """Send the last value again if it has become stale."""
        self._wake.set()

    def end(self) -> None:
        """End the iteration, even if a value waits."""
        self._ended = True
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[LiveValue]:
        """Each value that differs from the last one, with its staleness at that moment, until `end`."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._ended:
                return
            if self._latest is None:
                continue
            shown = self._freshness.of(self._latest)
            if shown != self._last_shown:
                self._last_shown = shown
                yield shown


class Streams:
    """The subscribers of this process, and the reader that serves them."""

    def __init__(self, metrics: HttpMetrics, freshness: Freshness, now: Callable[[], datetime]) -> None:
        self._metrics = metrics
        self._freshness = freshness
        self._now = now
        self.last_tick: datetime | None = None
        """Time of the last notification of new values, from any leader; None before the first."""
        self._subscribers: defaultdict[UUID, set[Subscriber]] = defaultdict(set)
        self._unread: set[UUID] = set()
        self._wake = asyncio.Event()
        self._closed = False

    @contextmanager
    def subscriber(self, portfolio_id: UUID, user_id: UUID | None = None) -> Iterator[Subscriber]:
        """A subscriber to a portfolio. It receives the current value if there is one, then each new value.

        The subscriber ends when the portfolio is deleted or belongs to another user. Without a user, the owner is not
        checked.
        """
        subscriber = Subscriber(self._freshness, user_id)
        if self._closed:
            subscriber.end()
        self._subscribers[portfolio_id].add(subscriber)
        self._read_soon({portfolio_id})
        try:
            yield subscriber
        finally:
            subscribers = self._subscribers[portfolio_id]
            subscribers.discard(subscriber)
            if not subscribers:
                del self._subscribers[portfolio_id]

    def close(self) -> None:
        """End all subscribers, present and future."""
        self._closed = True
        for subscribers in self._subscribers.values():
            for subscriber in subscribers:
                subscriber.end()

    async def run(self, store: Store) -> None:
        """Serve the subscribers, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_notices(store))
            tasks.create_task(self._read(store))
            tasks.create_task(self._refresh_ages())
            tasks.create_task(self._check_owners())

    def _read_soon(self, portfolio_ids: set[UUID]) -> None:
        self._unread |= portfolio_ids
        self._wake.set()

    async def _follow_notices(self, store: Store) -> None:
        async for notice in store.listen():
            if notice.values:
                self.last_tick = self._now()
                self._metrics.last_tick.set(self.last_tick.timestamp())
            self._read_soon(set(self._subscribers))

    async def _refresh_ages(self) -> None:
        while True:
            await asyncio.sleep(AGE_INTERVAL)
            for subscribers in self._subscribers.values():
                for subscriber in subscribers:
                    subscriber.refresh()

    async def _check_owners(self) -> None:
        while True:
            await asyncio.sleep(OWNER_INTERVAL)
            self._read_soon(set(self._subscribers))

    async def _read(self, store: Store) -> None:
        """Run one query at a time. Each query reads all values that were requested during the query before it."""
        outage = Outage(logger, "live values cannot be read, retrying: %s", "live values are read again")
        while True:
            await self._wake.wait()
            self._wake.clear()
            wanted, self._unread = self._unread & self._subscribers.keys(), set()
            if not wanted:
                continue
            try:
                await self._serve(store, wanted)
            except StoreError as error:
                outage.failed(error)
                self._read_soon(wanted)
                await asyncio.sleep(RETRY_DELAY)
                continue
            outage.recovered()

    async def _serve(self, store: Store, wanted: set[UUID]) -> None:
        """Read the values of these portfolios, and offer them to the subscribers that exist at the start.

        This method keeps no reference to a subscriber after its return, so that a closed stream frees its memory.

        Raises:
            StoreError: the database did not answer.
        """
        # A subscriber that arrives during the query requests another query, which reads the owner again.
        present = {portfolio_id: tuple(self._subscribers[portfolio_id]) for portfolio_id in wanted}
        found = await store.live_of_owners(wanted)
        for portfolio_id, subscribers in present.items():
            owner, value = found.get(portfolio_id, (None, None))
            for subscriber in subscribers:
                if owner is None or not subscriber.may_see(owner):
                    subscriber.end()
                elif value is not None:
                    subscriber.offer(value)
