"""Values from positions and prices: exact, over arrays. No clock is looked at, nothing is read.

Quantities are integers of 1e-8 shares and prices of 1e-6 dollars, so a portfolio's value is an integer of 1e-14 dollars
that can need over a hundred bits. It is computed twice: in 64-bit integers, which is right but for a multiple of 2^64,
and in floating point, which says which multiple. Together they are exact; see `_sums`.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Self
from uuid import UUID

import numpy as np

from service.market.calendar import Session
from service.portfolio.positions import Block, Flags, Ids, Numbers, uuids
from service.portfolio.records import Quote
from service.prices import Price

logger = logging.getLogger(__name__)

PRICE_PLACES = Decimal("0.000001")
HIGHEST_PRICE = Decimal(10) ** 9
"""The first price, in dollars, that is taken for none."""

WIDE_SHOWN = 5
"""Of the portfolios that are too wide, how many a line of log names."""

VALUE_UNITS = 10_000
"""Values and fractions are given in ten-thousandths."""

ROUNDING = Context(prec=60, rounding=ROUND_HALF_EVEN)
UNIT = 10**10
"""Of 1e-14 dollars, how many make a ten-thousandth of one."""
WIDEST = 2.0**96
"""Of 1e-14 dollars, the most that a portfolio's positions may come to, regardless of sign: 792 trillion dollars."""
MOST_EXACT_POSITIONS = 2**19
"""Of one portfolio, so that what floating point rounds away stays below 2^62."""

NEVER = np.iinfo(np.int64).max
"""For an instant: Postgres's infinity."""
POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Mark:
    """What one share is valued at, in dollars, and when that price was made."""

    price: Decimal
    at: datetime
    stale: bool
    open: Decimal
    """The symbol's first price of the session; until it has one, its price: it contributes no change."""


@dataclass(frozen=True)
class Marks:
    """The marks of all symbols, by number; a symbol without one has the price 0."""

    prices: Numbers
    """In millionths of a dollar."""
    opens: Numbers
    at: Numbers
    """In microseconds since 2000, as Postgres counts."""
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
    """What portfolios are worth, one element each, as far as their positions have a price."""

    ids: Ids
    value: Numbers
    """In ten-thousandths of a dollar. An empty portfolio is worth 0."""
    day_open: Numbers
    """The same positions at the opens of their marks, in ten-thousandths of a dollar. While it stays the same, values
    can be compared: it moves when positions change, and when a symbol gets its first price of the session."""
    known: Flags
    """Whether `value` and `day_open` are: not when not one position has a price, nor when they are `too_wide`."""
    fraction: Numbers
    """Of the positions, those in `value`, in ten-thousandths; an empty portfolio's is 1. Rounded, but 1 only if all
    are, and 0 only if none is."""
    stale: Flags
    oldest: Numbers
    """When the oldest price in `value` was made, in microseconds since 2000; `NEVER` if there is none."""
    too_wide: Flags
    """Whether the positions come to more than can be computed exactly."""

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def joined(cls, parts: Sequence["Values"]) -> Self:
        """All of them, at least one, in the order given."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))

    def part(self, number: int, parts: int) -> "Values":
        """Of so many parts, about as long as each other, the one of that number."""
        first, behind = (len(self) * place // parts for place in (number, number + 1))
        return Values(*(getattr(self, name)[first:behind] for name in self.__dataclass_fields__))


def value_all(blocks: Iterable[Block], marks: Marks) -> Values:
    """Value every portfolio of the blocks; see `value_block`."""
    return Values.joined([value_block(block, marks) for block in blocks] or [value_block(Block.empty(), marks)])


def value_block(block: Block, marks: Marks) -> Values:
    """Value each portfolio. A position without a mark lowers its `fraction`; it is not worth nothing."""
    held = block.counts > 0
    value, day_open, priced = (np.zeros(len(block), np.int64) for _ in range(3))
    oldest = np.full(len(block), NEVER)
    stale, too_wide = np.zeros(len(block), np.bool_), np.zeros(len(block), np.bool_)
    if held.any():  # reduceat gives an empty portfolio its neighbour's position
        starts, symbols = block.starts[:-1][held], block.symbols
        has_price = marks.prices > 0
        value[held], wide = _sums(block.quantities, marks.prices[symbols], starts)
        day_open[held], wide_open = _sums(block.quantities, marks.opens[symbols], starts)
        too_wide[held] = wide | wide_open | (block.counts[held] > MOST_EXACT_POSITIONS)
        oldest[held] = np.minimum.reduceat(marks.at[symbols], starts)
        if marks.stale.any():
            stale[held] = np.logical_or.reduceat((marks.stale & has_price)[symbols], starts)
        priced[held] = block.counts[held]
        if not has_price[block.held].all():
            priced[held] = np.add.reduceat(has_price[symbols].astype(np.int64), starts)
    known = ((priced > 0) | ~held) & ~too_wide
    return Values(block.ids, value, day_open, known, _fractions(priced, block.counts), stale, oldest, too_wide)


def _sums(quantities: Numbers, prices: Numbers, starts: Numbers) -> tuple[Numbers, Flags]:
    """Each portfolio's sum of quantity times price in ten-thousandths of a dollar, half to even, and if it is too wide.

    With `quotient` the floating-point value in ten-thousandths, rounded, the exact sum differs from `quotient * UNIT`
    by less than 2^63: so that difference is known from its lowest 64 bits, which wrapping integers give exactly.
    """
    lowest = np.add.reduceat(quantities.view(np.uint64) * prices.view(np.uint64), starts)
    products = quantities * prices.astype(np.float64)
    about = np.add.reduceat(products, starts)
    wide = np.add.reduceat(np.abs(products, out=products), starts) >= WIDEST
    quotient = np.rint(np.where(wide, 0.0, about) / UNIT).astype(np.int64)
    difference = (lowest - quotient.view(np.uint64) * np.uint64(UNIT)).view(np.int64)
    more, rest = np.divmod(difference, UNIT)
    whole = quotient + more
    return whole + ((rest > UNIT // 2) | ((rest == UNIT // 2) & (whole % 2 == 1))), wide


def _fractions(parts: Numbers, wholes: Numbers) -> Numbers:
    """Parts of wholes in ten-thousandths, half to even; `VALUE_UNITS` where the whole is 0."""
    divisors = np.maximum(wholes, 1)
    fractions, rest = np.divmod(parts * VALUE_UNITS, divisors)
    fractions += (rest * 2 > divisors) | ((rest * 2 == divisors) & (fractions % 2 == 1))
    fractions = np.where(parts < wholes, np.minimum(fractions, VALUE_UNITS - 1), fractions)
    fractions = np.where(parts > 0, np.maximum(fractions, 1), fractions)
    return np.where(wholes == 0, VALUE_UNITS, fractions)


def report_too_wide(values: Values, told: set[UUID] | None = None) -> None:
    """Say in the log that portfolios have no value because they come to more than can be computed exactly.

    A few are named, all are counted, but for those `told` of before; whoever is told of now is added to them.
    """
    wide = [portfolio_id for portfolio_id in uuids(values.ids[values.too_wide]) if portfolio_id not in (told or ())]
    if told is not None:
        told.update(wide)
    if wide:
        shown = ", ".join(map(str, wide[:WIDE_SHOWN])) + (", ..." if len(wide) > WIDE_SHOWN else "")
        logger.error(
            "%d portfolios have no value: their positions come to over 792 trillion dollars: %s", len(wide), shown
        )


def usable(prices: Iterable[Price]) -> dict[str, Price]:
    """The prices that can be one, rounded to what the database keeps; a zero or a NaN is a missing price.

    Of two prices of one symbol, the newer one.
    """
    found: dict[str, Price] = {}
    for price in prices:
        if price.price.is_finite() and 0 < price.price < HIGHEST_PRICE:
            rounded = price.price.quantize(PRICE_PLACES, context=ROUNDING)
            known = found.get(price.symbol)
            if 0 < rounded < HIGHEST_PRICE and (known is None or known.at < price.at):
                found[price.symbol] = Price(price.symbol, rounded, price.at)
    return found


def quoted(price: Price, session: Session, before: Quote | None, now: datetime) -> Quote:
    """The quote that a source's price makes of the one before: its `open` lasts for the session.

    A price never goes back in time: one that was made earlier than the last, or at the same instant, changes nothing.
    Only a quote of the future, left by a clock that went wrong, gives way to whatever comes.
    """
    if before is not None and price.at <= before.at <= now:
        return before
    opened = before.open if before is not None and priced_in(before, session) else price.price
    return Quote(price.symbol, price.price, price.at, session.date, opened)


def priced_in(quote: Quote, session: Session) -> bool:
    """Whether its price was made in that session: what a source answers at the opening is mostly older."""
    return quote.session_date == session.date and quote.at >= session.open


def _millionths(dollars: Decimal) -> int:
    return int(dollars.scaleb(6, context=ROUNDING))
