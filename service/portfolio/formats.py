"""The formats of values in requests and in files, and the limits of what the database can hold.

Each ValueError of this module has a text that begins with "not".
"""

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
QUANTITY_LIMIT = Decimal(10) ** 10
"""Quantities, in shares, at or above this limit are rejected: in units of 1e-8 shares they must fit 64 bits."""
PRICE_PLACES = 6
PRICE_LIMIT = Decimal(10) ** 9
"""Prices, in dollars, at or above this limit are rejected."""


def read_id(text: str) -> UUID:
    """The id of a portfolio or a user: a UUID, written as 36 hexadecimal digits and hyphens.

    Raises:
        ValueError: the text is not an id.
    """
    if not ID.fullmatch(text):
        raise ValueError("not a UUID")
    return UUID(text)


def read_symbol(text: str) -> str:
    """A symbol, unchanged.

    Raises:
        ValueError: the text is not a symbol.
    """
    if not SYMBOL.fullmatch(text):
        raise ValueError("not a symbol: 1 to 20 of A-Z, 0-9, '.', '/' and '-'")
    return text


def read_day(text: str) -> date:
    """A date from `EARLIEST` to `LATEST`.

    Raises:
        ValueError: the text is not such a date.
    """
    try:
        if DATE.fullmatch(text) and EARLIEST <= (day := date.fromisoformat(text)) <= LATEST:
            return day
    except ValueError:
        pass  # such as February 30
    raise ValueError(f"not a date from {EARLIEST} to {LATEST}, YYYY-MM-DD")
