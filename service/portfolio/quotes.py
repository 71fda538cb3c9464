"""Quotes from the prices of a source: which prices are valid, and which price replaces a known one."""

from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal

from service.market.calendar import Session
from service.portfolio.formats import PRICE_LIMIT, PRICE_PLACES
from service.portfolio.records import Quote
from service.prices import Price

SMALLEST_PRICE = Decimal(1).scaleb(-PRICE_PLACES)
ROUNDING = Context(prec=60, rounding=ROUND_HALF_EVEN)


def valid_prices(prices: Iterable[Price]) -> dict[str, Price]:
    """The valid prices by symbol, rounded to the precision of the database.

    A price that is zero, negative, not finite, or at or above `PRICE_LIMIT` counts as missing. Of two prices of one
    symbol, the newer one is kept.
    """
    found: dict[str, Price] = {}
    for price in prices:
        if price.price.is_finite() and 0 < price.price < PRICE_LIMIT:
            rounded = price.price.quantize(SMALLEST_PRICE, context=ROUNDING)
            known = found.get(price.symbol)
            if 0 < rounded < PRICE_LIMIT and (known is None or known.at < price.at):
                found[price.symbol] = Price(price.symbol, rounded, price.at)
    return found


def updated_quote(price: Price, session: Session, before: Quote | None, now: datetime) -> Quote:
    """The quote after the source has given a price; its `open` stays the same for the whole session.

    A quote never goes back in time: a price made before the last one, or at the same instant, changes nothing. The
    exception is a quote from the future, left by a wrong clock: any price replaces it.
    """
    if before is not None and price.at <= before.at <= now:
        return before
    opened = before.open if before is not None and priced_in(before, session) else price.price
    return Quote(price.symbol, price.price, price.at, session.date, opened)


def priced_in(quote: Quote, session: Session) -> bool:
    """Whether the quote's price was made in that session. At the opening, most prices of a source are still older."""
    return quote.session_date == session.date and quote.at >= session.open
