"""Exact values of portfolios, computed over arrays. No I/O and no clock.

Quantities are integers in units of 1e-8 shares, and prices are integers in units of 1e-6 dollars. So a portfolio's
value is an integer in units of 1e-14 dollars, which can need more than a hundred bits. The value is computed twice: in
64-bit integers, which give it modulo 2^64, and in floating point, which gives the multiple of 2^64. Together the two
results give the exact value; see `_sums`.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Self
from uuid import UUID

import numpy as np

from service.portfolio.formats import PRICE_PLACES
from service.portfolio.positions import Block, Flags, Ids, Numbers, uuids

logger = logging.getLogger(__name__)

OVERFLOWS_SHOWN = 5
"""Portfolios that a log line about overflow names."""

VALUE_UNITS = 10_000
"""Number of units in one dollar, and in the fraction 1."""

UNIT = 10**10
"""Number of units of 1e-14 dollars in a ten-thousandth of a dollar."""
MAX_EXACT_SUM = 2.0**96
"""Largest sum of the absolute values of a portfolio's positions, in 1e-14 dollars: 792 trillion dollars."""
MAX_EXACT_POSITIONS = 2**19
"""Largest number of positions in a portfolio for which the rounding error of floating point stays below 2^62."""

NEVER = np.iinfo(np.int64).max
"""Postgres's infinity as an instant."""
POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Mark:
    """The price at which one share is valued, in dollars, and when the price was made."""

    price: Decimal
    at: datetime
    stale: bool
    open: Decimal
    """The symbol's first price of the session.

    Until there is one, it equals `price`, so the symbol adds nothing to the day's change.
    """


@dataclass(frozen=True)
class Marks:
    """The marks of all symbols, by the symbol's number. A symbol without a mark has the price 0."""

    prices: Numbers
    """Prices in millionths of a dollar; `opens` too."""
    opens: Numbers
    at: Numbers
    """Times at which the prices were made, in microseconds since 2000, as in Postgres."""
    stale: Flags

    @classmethod
    def of(cls, symbols: Iterable[str], marks: Mapping[str, Mark]) -> Self:
        """The marks of those symbols, in that order."""
        found = [marks.get(symbol) for symbol in symbols]
        return cls(
            np.array([0 if mark is None else _millionths(mark.price) for mark in found], np.int64),
            np.array([0 if mark is None else _millionths(mark.open) for mark in found], np.int64),
            np.array(
                [NEVER if mark is None else (mark.at - POSTGRES_EPOCH) // MICROSECOND for mark in found], np.int64
            ),
            np.array([mark is not None and mark.stale for mark in found], np.bool_),
        )


@dataclass(frozen=True)
class Values:
    """Values of portfolios, one array element for each. Positions without a price are left out of the sums."""

    ids: Ids
    value: Numbers
    """Value in ten-thousandths of a dollar. An empty portfolio is worth 0."""
    day_open: Numbers
    """The value of the same positions at the opens of their marks, in ten-thousandths of a dollar. It changes when
    positions change and when a symbol gets its first price of the session. While it is unchanged, values of the session
    can be compared."""
    known: Flags
    """Whether `value` and `day_open` are known. They are unknown when no position has a price, and on `overflow`."""
    fraction: Numbers
    """The share of positions that have a price, in ten-thousandths; 1 for an empty portfolio. The share is rounded, but
    it is 1 only if all positions have a price and 0 only if none has."""
    stale: Flags
    oldest: Numbers
    """When the oldest price in `value` was made, in microseconds since 2000; `NEVER` without a price."""
    overflow: Flags
    """Whether the positions exceed `MAX_EXACT_SUM` or `MAX_EXACT_POSITIONS`."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def overflowing(self) -> Ids:
        """The ids of the portfolios whose positions overflow."""
        return self.ids[self.overflow]


def value_block(block: Block, marks: Marks) -> Values:
    """The values of a block's portfolios. A position without a mark is left out of the sums, and lowers `fraction`."""
    held = block.counts > 0
    value, day_open, priced = (np.zeros(len(block), np.int64) for _ in range(3))
    oldest = np.full(len(block), NEVER)
    stale, overflow = np.zeros(len(block), np.bool_), np.zeros(len(block), np.bool_)
    if held.any():  # for an empty portfolio, reduceat would return its neighbour's position
        starts, symbols = block.starts[:-1][held], block.symbols
        has_price = marks.prices > 0
        value[held], value_overflow = _sums(block.quantities, marks.prices[symbols], starts)
        day_open[held], open_overflow = _sums(block.quantities, marks.opens[symbols], starts)
        overflow[held] = value_overflow | open_overflow | (block.counts[held] > MAX_EXACT_POSITIONS)
        oldest[held] = np.minimum.reduceat(marks.at[symbols], starts)
        if marks.stale.any():
            stale[held] = np.logical_or.reduceat((marks.stale & has_price)[symbols], starts)
        priced[held] = block.counts[held]
        if not has_price[block.held].all():
            priced[held] = np.add.reduceat(has_price[symbols].astype(np.int64), starts)
    known = ((priced > 0) | ~held) & ~overflow
    return Values(block.ids, value, day_open, known, _fractions(priced, block.counts), stale, oldest, overflow)


def _sums(quantities: Numbers, prices: Numbers, starts: Numbers) -> tuple[Numbers, Flags]:
    """Each portfolio's sum of quantity times price, and whether the sum overflows.

    Sums are in ten-thousandths of a dollar, rounded half to even. `quotient` is the rounded floating-point sum. The
    exact sum differs from `quotient * UNIT` by less than 2^63, so its lowest 64 bits determine the difference.
    Wrapping integers give these 64 bits exactly.
    """
    low_bits = np.add.reduceat(quantities.view(np.uint64) * prices.view(np.uint64), starts)
    products = quantities * prices.astype(np.float64)
    approximate = np.add.reduceat(products, starts)
    overflow = np.add.reduceat(np.abs(products, out=products), starts) >= MAX_EXACT_SUM
    quotient = np.rint(np.where(overflow, 0.0, approximate) / UNIT).astype(np.int64)
    difference = (low_bits - quotient.view(np.uint64) * np.uint64(UNIT)).view(np.int64)
    carry, rest = np.divmod(difference, UNIT)
    whole = quotient + carry
    return whole + ((rest > UNIT // 2) | ((rest == UNIT // 2) & (whole % 2 == 1))), overflow


def _fractions(parts: Numbers, wholes: Numbers) -> Numbers:
    """Parts of wholes in ten-thousandths, rounded half to even; `VALUE_UNITS` where the whole is 0."""
    divisors = np.maximum(wholes, 1)
    fractions, rest = np.divmod(parts * VALUE_UNITS, divisors)
    fractions += (rest * 2 > divisors) | ((rest * 2 == divisors) & (fractions % 2 == 1))
    fractions = np.where(parts < wholes, np.minimum(fractions, VALUE_UNITS - 1), fractions)
    fractions = np.where(parts > 0, np.maximum(fractions, 1), fractions)
    return np.where(wholes == 0, VALUE_UNITS, fractions)


def report_overflow(overflow: Ids, already_reported: set[UUID] | None = None) -> None:
    """Log the portfolios that have no value because their positions overflow, if there are any.

    Portfolios in `already_reported` are left out. The log line counts the others and names a few of them. Then the
    others are added to `already_reported`.
    """
    new = [portfolio_id for portfolio_id in uuids(overflow) if portfolio_id not in (already_reported or ())]
    if already_reported is not None:
        already_reported.update(new)
    if new:
        shown = ", ".join(map(str, new[:OVERFLOWS_SHOWN])) + (", ..." if len(new) > OVERFLOWS_SHOWN else "")
        logger.error("%d portfolios have no value: over 792 trillion dollars or 524,288 positions: %s", len(new), shown)


def _millionths(dollars: Decimal) -> int:
    return int(dollars.scaleb(PRICE_PLACES))
