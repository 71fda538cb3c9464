"""What Alpaca's answers say, read without trust: whatever is missing, garbled or no price is None."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from service.market import NEW_YORK
from service.prices import Price


def latest_price(symbol: str, snapshot: object) -> Price | None:
    """The price of a snapshot: its latest trade, or the close of its minute bar where there is no trade."""
    for part, field in (("latestTrade", "p"), ("minuteBar", "c")):
        found = _member(snapshot, part)
        price, at = _price(_member(found, field)), _instant(_member(found, "t"))
        if price is not None and at is not None:
            return Price(symbol, price, at)
    return None


def bars_by_symbol(page: Mapping[str, Any]) -> dict[str, list[object]] | None:
    """The bars of one page; None if it holds something else."""
    bars = page.get("bars")
    if bars is None:
        return {}
    if not isinstance(bars, dict):
        return None
    return {symbol: some for symbol, some in bars.items() if isinstance(some, list)}


def close_of(bars: Iterable[object], day: date) -> Decimal | None:
    """The close of the daily bar of that date; its time is the midnight in New York with which the day begins."""
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
    """A time in RFC 3339; of its nanoseconds the microseconds are kept."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return None if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
