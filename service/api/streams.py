"""Live values to the clients that listen, from any task, whoever leads.

One reader a process hears of new values, reads those that somebody listens to in one query, and hands each subscriber
the latest. A subscriber that is slow skips values; it holds up nobody and costs the memory of one value. A value that
becomes stale because no other follows is told again, as stale: by the clock alone, for perhaps no database answers.

Each value is read together with its portfolio's owner: a stream ends where the portfolio is not the user's any more, or
is gone, and shows no value that was written after that. The reader looks when the database tells of such a change, at
each new value, and every `OWNER_INTERVAL` seconds.
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
"""Seconds until values that could not be read are read again."""
AGE_INTERVAL = 30.0
"""Seconds from one look at the age of what was told to the next."""
OWNER_INTERVAL = 30.0
"""Seconds from one look at the owners to the next where nothing tells of a change."""

logger = logging.getLogger(__name__)


class Subscriber:
    """One client's place: at most one value that it has not taken yet."""

    def __init__(self, freshness: Freshness, user_id: UUID | None) -> None:
        self._freshness = freshness
        self._user_id = user_id
        self._latest: LiveValue | None = None
        self._taken: LiveValue | None = None
        self._over = False
        self._stirred = asyncio.Event()

    def offer(self, value: LiveValue) -> None:
        """Put a value in the place of the one that waits there."""
        self._latest = value
        self._stirred.set()

    def may_see(self, owner: UUID) -> bool:
        """Whether that user's portfolios may be shown to the client."""
        return self._user_id is None or self._user_id == owner

    def look_again(self) -> None:
        """Tell the last value once more if it has become stale."""
        self._stirred.set()

    def end(self) -> None:
        """Let the iteration end, even if a value waits."""
        self._over = True
        self._stirred.set()

    async def __aiter__(self) -> AsyncIterator[LiveValue]:
        """Each value that differs from the last one taken, as it is to be shown at that moment, until the end."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            if self._over:
                return
            if self._latest is None:
                continue
            shown = self._freshness.of(self._latest)
            if shown != self._taken:
                self._taken = shown
                yield shown


class Streams:
    """The subscribers of this process, and the reader that serves them."""

    def __init__(self, metrics: HttpMetrics, freshness: Freshness, now: Callable[[], datetime]) -> None:
        self._metrics = metrics
        self._freshness = freshness
        self._now = now
        self.last_tick: datetime | None = None
        """When new values were last heard of, whoever wrote them; None until then."""
        self._subscribers: defaultdict[UUID, set[Subscriber]] = defaultdict(set)
        self._unread: set[UUID] = set()
        self._stirred = asyncio.Event()
        self._closed = False

    @contextmanager
    def subscriber(self, portfolio_id: UUID, user_id: UUID | None = None) -> Iterator[Subscriber]:
        """A subscriber to a portfolio: its current value comes at once, if it has one, then each new one.

        Ends when the portfolio is gone, or is not that user's; without a user it may be anybody's.
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
        """End every subscriber, and each that comes later."""
        self._closed = True
        for subscribers in self._subscribers.values():
            for subscriber in subscribers:
                subscriber.end()

    async def run(self, store: Store) -> None:
        """Serve the subscribers, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear(store))
            tasks.create_task(self._read(store))
            tasks.create_task(self._grow_old())
            tasks.create_task(self._look_at_owners())

    def _read_soon(self, portfolio_ids: set[UUID]) -> None:
        self._unread |= portfolio_ids
        self._stirred.set()

    async def _hear(self, store: Store) -> None:
        async for notice in store.listen():
            if notice.values:
                self.last_tick = self._now()
                self._metrics.last_tick.set(self.last_tick.timestamp())
            self._read_soon(set(self._subscribers))

    async def _grow_old(self) -> None:
        while True:
            await asyncio.sleep(AGE_INTERVAL)
            for subscribers in self._subscribers.values():
                for subscriber in subscribers:
                    subscriber.look_again()

    async def _look_at_owners(self) -> None:
        while True:
            await asyncio.sleep(OWNER_INTERVAL)
            self._read_soon(set(self._subscribers))

    async def _read(self, store: Store) -> None:
        """One query at a time, for all that was asked for while the last one ran."""
        outage = Outage(logger, "live values are not read, and it is tried again: %s", "live values are read again")
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            wanted, self._unread = self._unread & self._subscribers.keys(), set()
            if not wanted:
                continue
            # Who comes while the database is asked may know better whose it is, and asks by himself.
            present = {portfolio_id: tuple(self._subscribers[portfolio_id]) for portfolio_id in wanted}
            try:
                found = await store.live_of_owners(wanted)
            except StoreError as error:
                outage.met(error)
                self._read_soon(wanted)
                await asyncio.sleep(RETRY_DELAY)
                continue
            outage.over()
            for portfolio_id, subscribers in present.items():
                owner, value = found.get(portfolio_id, (None, None))
                for subscriber in subscribers:
                    if owner is None or not subscriber.may_see(owner):
                        subscriber.end()
                    elif value is not None:
                        subscriber.offer(value)
