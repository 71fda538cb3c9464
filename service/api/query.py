"""Path and query parameters, read strictly. Each parameter has one form, and errors name the parameter."""

import re
from collections.abc import Mapping
from datetime import date
from uuid import UUID

from multidict import MultiMapping

from service.api.limits import MAX_ROWS
from service.portfolio.formats import DATE, read_id


class BadRequest(Exception):
    """An invalid parameter; `field` is its name."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


def read_portfolio_id(path: Mapping[str, str]) -> UUID:
    """The `id` of a path.

    Raises:
        BadRequest: the id is not a UUID in its usual form of 36 characters.
    """
    try:
        return read_id(path["id"])
    except ValueError as error:
        raise BadRequest("id", str(error)) from None


def check_names(query: MultiMapping[str], *known: str) -> None:
    """Check that a query has only known parameters, each at most once.

    Raises:
        BadRequest: a parameter is unknown, or given twice.
    """
    for name in query:
        if name not in known:
            raise BadRequest(name[:40], f"no such parameter; the parameters are {', '.join(known)}")
        if len(query.getall(name)) > 1:
            raise BadRequest(name, "given twice")


def read_dates(query: Mapping[str, str]) -> tuple[date | None, date | None]:
    """`from` and `to`; None for a missing date.

    Raises:
        BadRequest: one of them is not a date, or `from` is later than `to`.
    """
    first, last = _date(query, "from"), _date(query, "to")
    if first is not None and last is not None and first > last:
        raise BadRequest("from", f"{first} is later than 'to', {last}")
    return first, last


def read_limit(query: Mapping[str, str]) -> int:
    """`limit`, the maximum number of rows.

    Raises:
        BadRequest: `limit` is not a whole number within its bounds.
    """
    text = query.get("limit", str(MAX_ROWS))
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MAX_ROWS:
        raise BadRequest("limit", f"not a whole number from 1 to {MAX_ROWS}")
    return int(text)


def _date(query: Mapping[str, str], name: str) -> date | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        if DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass  # such as February 30
    raise BadRequest(name, "not a date, YYYY-MM-DD")
