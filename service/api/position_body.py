"""The positions that a user writes: a JSON list, read field by field."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

from service.portfolio.formats import MOST_QUANTITY, QUANTITY_PLACES, SMALLEST_QUANTITY, read_day, read_symbol
from service.portfolio.records import PositionEntry

MOST_ENTRIES = 1000
"""In one request."""
MOST_ERRORS = 20
"""In one answer."""

QUANTITY = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
EXACT = Context(prec=60)
MISSING, TWICE = object(), object()
"""What stands for a field that is not there, and for one of which nobody can say which value is meant."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field; `field` is its path, such as `[3].quantity`."""

    field: str
    problem: str


class InvalidEntries(Exception):
    """The first errors, at least one."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(f"{errors[0].field}: {errors[0].problem}")
        self.errors = errors


def read_entries(body: bytes, portfolio_id: UUID, user_id: UUID) -> list[PositionEntry]:
    """The entries of `[{"symbol": "KO", "quantity": "2.5", "valid_from": "2026-02-13"}, ...]`.

    A quantity may be a string or a number; either is taken exactly as written.

    Raises:
        InvalidEntries: naming each field that is wrong.
    """
    try:
        rows = json.loads(
            body, parse_float=_Number, parse_int=_Number, parse_constant=_Number, object_pairs_hook=_object
        )
    except (ValueError, RecursionError):
        raise InvalidEntries(FieldError("body", "not JSON")) from None
    if not isinstance(rows, list):
        raise InvalidEntries(FieldError("body", "not a list"))
    if not 1 <= len(rows) <= MOST_ENTRIES:
        raise InvalidEntries(FieldError("body", f"not a list of 1 to {MOST_ENTRIES} positions"))
    errors: list[FieldError] = []
    entries: list[PositionEntry] = []
    seen: dict[tuple[str, date], int] = {}
    for place, row in enumerate(rows):
        fields = _fields(row, f"[{place}]", errors)
        if fields is None:
            continue
        entry = PositionEntry(portfolio_id, user_id, **fields)
        if (first := seen.setdefault((entry.symbol, entry.valid_from), place)) != place:
            errors.append(FieldError(f"[{place}].symbol", f"{entry.symbol} of {entry.valid_from} is in [{first}] too"))
        entries.append(entry)
    if errors:
        raise InvalidEntries(*errors[:MOST_ERRORS])
    return entries


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        found[name] = TWICE if name in found else value
    return found


def _fields(row: object, path: str, errors: list[FieldError]) -> dict[str, Any] | None:
    """The fields of one entry; None if any is wrong, which is added to the errors."""
    if not isinstance(row, dict):
        errors.append(FieldError(path, "not an object"))
        return None
    found: dict[str, Any] = {}
    for name in (*READERS, *(row.keys() - READERS.keys())):
        try:
            found[name] = READERS.get(name, _unknown)(row.get(name, MISSING))
        except ValueError as error:
            errors.append(FieldError(f"{path}.{name[:40]}", str(error)))
    return found if len(found) == len(READERS) and row.keys() == READERS.keys() else None


def _symbol(value: object) -> str:
    return read_symbol(_text(value))


def _quantity(value: object) -> Decimal:
    _check_given_once(value)
    if not isinstance(value, str) or not QUANTITY.fullmatch(value):
        raise ValueError("not a decimal number of zero or more")
    quantity = Decimal(value)
    if quantity >= MOST_QUANTITY:
        raise ValueError("too large")
    exact = quantity.quantize(SMALLEST_QUANTITY, context=EXACT)
    if exact != quantity:
        raise ValueError(f"has more than {QUANTITY_PLACES} decimal places")
    return exact


def _date(value: object) -> date:
    return read_day(_text(value))


def _text(value: object) -> str:
    _check_given_once(value)
    if type(value) is not str:
        raise ValueError("not a string")
    return value


def _check_given_once(value: object) -> None:
    if value is MISSING:
        raise ValueError("missing")
    if value is TWICE:
        raise ValueError("given twice")


def _unknown(_: object) -> None:
    raise ValueError("no such field")


READERS: Mapping[str, Callable[[object], object]] = {"symbol": _symbol, "quantity": _quantity, "valid_from": _date}
