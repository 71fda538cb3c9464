"""Reads Alpaca's answers, which may be invalid: a missing or invalid value is read as None."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from service.market.calendar import NEW_YORK
from service.market.tick_schedule import EPOCH
from service.prices import Price

PRICES = (("latestTrade", "p"), ("minuteBar", "c"), ("dailyBar", "c"), ("prevDailyBar", "c"))
"""Parts of a snapshot that have the price of a trade, and the field of that price. A quote is not a trade."""


def latest_price(symbol: str, snapshot: object, until: datetime) -> Price | None:
    """The newest price at or before `until` in a snapshot, among its latest trade and the closes of its bars.

    A bar's time is its beginning, so its close may be newer than that time. Of prices with the same time, the trade's
    price is preferred, then the close of the shorter bar.
    """
    found = []
    for part, field in PRICES:
        price, at = _price(_member(_member(snapshot, part), field)), _instant(_member(_member(snapshot, part), "t"))
        if price is not None and at is not None and at <= until:
            found.append(Price(symbol, price, at))
    return max(found, key=lambda price: price.at, default=None)


def bars_by_symbol(page: Mapping[str, Any]) -> dict[str, list[object]] | None:
    """The bars of one page; None if the page is invalid."""
    bars = page.get("bars")
    if bars is None:
        return {}
    if not isinstance(bars, dict):
        return None
    return {symbol: some for symbol, some in bars.items() if isinstance(some, list)}


def close_of(bars: Iterable[object], day: date) -> Decimal | None:
    """The close of the daily bar of that date. The bar's time is midnight in New York, the beginning of the day."""
    for bar in bars:
        at = _instant(_member(bar, "t"))
        if at is not None and at.astimezone(NEW_YORK).date() == day:
            return _price(_member(bar, "c"))
    return None


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _price(value: object) -> Decimal | None:
    return value if isinstance(value, Decimal) and value.is_finite() and value > 0 else None


def _instant(value: object) -> datetime | None:
    """A time in RFC 3339, truncated to microseconds.

    A time before 1970 is None: the year 1 stands for a time that is not set, and the database does not accept it.
    """
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC) if found.tzinfo is not None and found >= EPOCH else None
    except (ValueError, OverflowError):
        return None
