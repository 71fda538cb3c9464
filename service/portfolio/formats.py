"""How values are written, in a request and in a file alike: one form each, within the bounds of what can be kept."""

import re
from datetime import date
from decimal import Decimal
from uuid import UUID

ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9./-]{0,19}")
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
EARLIEST, LATEST = date(1970, 1, 1), date(2099, 12, 31)

QUANTITY_PLACES = 8
SMALLEST_QUANTITY = Decimal(1).scaleb(-QUANTITY_PLACES)
MOST_QUANTITY = Decimal(10) ** 10
"""The first quantity, in shares, that is refused: 64 bits hold no more of the smallest."""


def read_id(text: str) -> UUID:
    """A portfolio's or a user's id, in the one form of the many that a UUID has.

    Raises:
        ValueError: it is none; the text begins with "not", here and below.
    """
    if not ID.fullmatch(text):
        raise ValueError("not a UUID")
    return UUID(text)


def read_symbol(text: str) -> str:
    """A symbol, as it is.

    Raises:
        ValueError: it is none.
    """
    if not SYMBOL.fullmatch(text):
        raise ValueError("not a symbol: 1 to 20 of A-Z, 0-9, '.', '/' and '-'")
    return text


def read_day(text: str) -> date:
    """A date from `EARLIEST` to `LATEST`.

    Raises:
        ValueError: it is none.
    """
    try:
        if DATE.fullmatch(text) and EARLIEST <= (day := date.fromisoformat(text)) <= LATEST:
            return day
    except ValueError:
        pass  # such as February 30
    raise ValueError(f"not a date from {EARLIEST} to {LATEST}, YYYY-MM-DD")
