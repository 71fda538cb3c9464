"""Where prices come from: what every source offers.

A source never makes a price up: a symbol that it has no price for is absent from its answer, and a source that cannot
answer at all raises `PricesUnavailable`. What to do about either is the caller's business.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol

LATEST_TIMEOUT = 10.0
"""Seconds that the latest prices may take; less where ticks are closer together."""


@dataclass(frozen=True, slots=True)
class Price:
    """What one share cost, in dollars, and when: `at` is the instant of the trade, not of the question (aware, UTC)."""

    symbol: str
    price: Decimal
    at: datetime


class PricesUnavailable(Exception):
    """The source cannot answer now; the text says why, in one line and without secrets. Ask again later."""


class PriceSource(Protocol):
    """A source of prices for any number of symbols at a time."""

    async def latest(self, symbols: Collection[str]) -> dict[str, Price]:
        """The last price of each symbol that has one.

        Raises:
            PricesUnavailable: the source did not answer, or refused to.
        """

    async def closes(self, symbols: Collection[str], day: date) -> dict[str, Price]:
        """The official closing price of each symbol that has one for the session of that date.

        Raises:
            PricesUnavailable: the source did not answer, or refused to.
        """

    async def aclose(self) -> None:
        """Give up what the source holds open."""
