"""The interface of every price source.

A source never replaces a missing price: a symbol without a price is missing from the answer. A source that cannot
answer at all raises `PricesUnavailable`. The caller decides what to do.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol

LATEST_TIMEOUT = 10.0
"""Seconds that a source may take for the latest prices; the tick interval if that is shorter."""
CLOSES_TIMEOUT = 60.0
"""Seconds that a source may take for a session's closes."""


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one share, in dollars. `at` is the instant of the trade and not of the request (aware, UTC)."""

    symbol: str
    price: Decimal
    at: datetime


class PricesUnavailable(Exception):
    """The source cannot answer now; ask again later. The text gives the reason in one line, without secrets."""


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
        """Release the source's connections."""
