"""The parameters of a path and of a query, read strictly: one form each, and a wrong one is named."""

import re
from collections.abc import Mapping
from datetime import date
from uuid import UUID

from multidict import MultiMapping

from service.api.limits import MOST_ROWS
from service.portfolio.formats import DATE, read_id


class BadRequest(Exception):
    """A parameter that cannot be used; `field` is its name."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


def read_portfolio_id(path: Mapping[str, str]) -> UUID:
    """The `id` of a path.

    Raises:
        BadRequest: it is no UUID, or one in another of its many forms.
    """
    try:
        return read_id(path["id"])
    except ValueError as error:
        raise BadRequest("id", str(error)) from None


def check_names(query: MultiMapping[str], *known: str) -> None:
    """See that a query has only parameters that are read, each once.

    Raises:
        BadRequest: one is unknown, or given twice.
    """
    for name in query:
        if name not in known:
            raise BadRequest(name[:40], f"no such parameter; there are {', '.join(known)}")
        if len(query.getall(name)) > 1:
            raise BadRequest(name, "given twice")


def read_dates(query: Mapping[str, str]) -> tuple[date | None, date | None]:
    """`from` and `to`; None where one is not there.

    Raises:
        BadRequest: one is not a date, or they are the wrong way round.
    """
    first, last = _date(query, "from"), _date(query, "to")
    if first is not None and last is not None and first > last:
        raise BadRequest("from", f"{first} is later than 'to', {last}")
    return first, last


def read_limit(query: Mapping[str, str]) -> int:
    """`limit`: how many rows at most.

    Raises:
        BadRequest: it is not a number of rows that there may be.
    """
    text = query.get("limit", str(MOST_ROWS))
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MOST_ROWS:
        raise BadRequest("limit", f"not a whole number from 1 to {MOST_ROWS}")
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
