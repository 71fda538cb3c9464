"""A term and a price source for the tracker, and a store that exposes the tracker's positions."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

from bench.cost import Machine
from service.database.position_reader import Progress, no_progress
from service.database.store import Store
from service.portfolio.positions import Book
from service.prices import Price

TOKEN = time.time_ns() // 1000
"""A token in the sidecar's form: microseconds since the epoch."""


@dataclass
class Term:
    """A term that never ends."""

    name: str
    token: int = TOKEN
    holder: str = "bench"

    def check(self) -> None:
        """Do nothing, since the term never ends."""


@dataclass
class Prices:
    """A price source with new prices in each answer. It records the time of its last answer."""

    machine: Machine | None = None
    asked: int = 0
    answered: float = 0.0
    before: tuple[float, float] = (0.0, 0.0)
    """Processor seconds of the service and of Postgres at the last answer."""

    async def latest(self, symbols: Collection[str]) -> dict[str, Price]:
        """Return a new price for each symbol."""
        self.asked += 1
        now = datetime.now(UTC)
        prices = {
            symbol: Price(symbol, Decimal(500 + hash(symbol) % 90_000 + self.asked % 5).scaleb(-2), now)
            for symbol in symbols
        }
        if self.machine is not None:
            self.before = self.machine.processor_seconds()
        self.answered = time.perf_counter()
        return prices

    async def closes(self, symbols: Collection[str], day: date) -> dict[str, Price]:  # noqa: ARG002 - `PriceSource` requires it
        """Return a new price for each symbol; the day does not matter."""
        return await self.latest(symbols)

    async def aclose(self) -> None:
        """Do nothing, since no connection is open."""


class OpenStore(Store):
    """A store that keeps a reference to the tracker's book."""

    book: Book | None = None

    async def load_positions(self, day: date, progress: Progress = no_progress) -> Book:
        """Load every portfolio; see `Store.load_positions`."""
        self.book = await super().load_positions(day, progress)
        return self.book

    async def update_positions(self, book: Book, day: date, progress: Progress = no_progress) -> Book:
        """Update the book; see `Store.update_positions`."""
        self.book = await super().update_positions(book, day, progress)
        return self.book
