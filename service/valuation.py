"""Values from positions and prices. Decimal throughout; nothing here does I/O or looks at a clock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal

from service.prices import Price
from service.records import Quote

Holdings = tuple[tuple[str, Decimal], ...]
"""What a portfolio holds: (symbol, quantity), each symbol once."""

EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
"""Wide enough for any quantity times any price that the database can hold."""

CENT_FRACTION = Decimal("0.0001")
"""Values and fractions are given to this many places."""

PRICE_PLACES = Decimal("0.000001")
HIGHEST_PRICE = Decimal(10) ** 14
"""The first price that does not fit `price_live` and `price_eod`."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What one share is valued at, in dollars, and when that price was made."""

    price: Decimal
    at: datetime
    stale: bool
    open: Decimal
    """The symbol's first price of the session."""


@dataclass(frozen=True, slots=True)
class Valuation:
    """What a portfolio is worth, in dollars, as far as its positions have a price."""

    value: Decimal | None
    """None: not one of its positions has a price. An empty portfolio is worth 0."""
    day_open: Decimal | None
    """The same positions at the session's first prices."""
    priced_fraction: Decimal
    """Of the positions, those in `value`, from 0 to 1; 1 for an empty portfolio."""
    stale: bool
    oldest_price_at: datetime | None


def value_of(holdings: Holdings, marks: Mapping[str, Mark]) -> Valuation:
    """Value one portfolio. A position without a mark lowers `priced_fraction`; it is not worth nothing."""
    if not holdings:
        return Valuation(Decimal(0), Decimal(0), Decimal(1), stale=False, oldest_price_at=None)
    priced = [(quantity, marks[symbol]) for symbol, quantity in holdings if symbol in marks]
    if not priced:
        return Valuation(None, None, Decimal(0), stale=False, oldest_price_at=None)
    value = day_open = Decimal(0)
    for quantity, mark in priced:
        value = EXACT.fma(quantity, mark.price, value)
        day_open = EXACT.fma(quantity, mark.open, day_open)
    return Valuation(
        value.quantize(CENT_FRACTION, context=EXACT),
        day_open.quantize(CENT_FRACTION, context=EXACT),
        _fraction(len(priced), len(holdings)),
        stale=any(mark.stale for _, mark in priced),
        oldest_price_at=min(mark.at for _, mark in priced),
    )


def usable(prices: Iterable[Price]) -> dict[str, Price]:
    """The prices that can be one, rounded to what the database keeps; a zero or a NaN is a missing price."""
    found: dict[str, Price] = {}
    for price in prices:
        if price.price.is_finite() and 0 < price.price < HIGHEST_PRICE:
            rounded = price.price.quantize(PRICE_PLACES, context=EXACT)
            if rounded > 0:
                found[price.symbol] = Price(price.symbol, rounded, price.at)
    return found


def quoted(price: Price, session_date: date, before: Quote | None) -> Quote:
    """The quote that a new price makes of the one before: its `open` lasts for the session."""
    same_session = before is not None and before.session_date == session_date
    opened = before.open if before is not None and same_session else price.price
    return Quote(price.symbol, price.price, price.at, session_date, opened)


def _fraction(part: int, whole: int) -> Decimal:
    """Rounded, but below 1 unless it is 1, and above 0 unless it is 0: it is compared with both."""
    exact = EXACT.divide(Decimal(part), Decimal(whole)).quantize(CENT_FRACTION, context=EXACT)
    if part < whole:
        exact = min(exact, 1 - CENT_FRACTION)
    return max(exact, CENT_FRACTION) if part > 0 else exact
