"""The request body with a user's positions: a JSON list that is read field by field."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

from service.api import schemas
from service.api.schemas import Json
from service.portfolio.formats import (
    EARLIEST,
    LATEST,
    QUANTITY_LIMIT,
    QUANTITY_PLACES,
    SMALLEST_QUANTITY,
    SYMBOL,
    read_day,
    read_symbol,
)
from service.portfolio.records import PositionEntry

MAX_ENTRIES = 1000
"""Maximum number of entries in a request."""
MAX_ERRORS = 20
"""Maximum number of errors in an answer."""

QUANTITY = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
EXACT = Context(prec=60)
MISSING, GIVEN_TWICE = object(), object()
"""Stand-ins for the value of a missing field, and of a field that the object has twice."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """An invalid field. `field` is its path, such as `[3].quantity`."""

    field: str
    problem: str


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an entry: how it is read, and its JSON schema. `read` raises ValueError for an invalid value."""

    read: Callable[[object], object]
    schema: Json


class InvalidEntries(Exception):
    """Invalid entries. `errors` has at least one error and at most `MAX_ERRORS`."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(f"{errors[0].field}: {errors[0].problem}")
        self.errors = errors


def read_entries(body: bytes, portfolio_id: UUID, user_id: UUID) -> list[PositionEntry]:
    """The entries of `[{"symbol": "KO", "quantity": "2.5", "valid_from": "2026-02-13"}, ...]`.

    A quantity may be a string or a number. Both are read exactly as written.

    Raises:
        InvalidEntries: the body is invalid; the errors name the fields.
    """
    try:
        rows = json.loads(
            body, parse_float=_Number, parse_int=_Number, parse_constant=_Number, object_pairs_hook=_object
        )
    except (ValueError, RecursionError):
        raise InvalidEntries(FieldError("body", "not JSON")) from None
    if not isinstance(rows, list):
        raise InvalidEntries(FieldError("body", "not a list"))
    if not 1 <= len(rows) <= MAX_ENTRIES:
        raise InvalidEntries(FieldError("body", f"not a list of 1 to {MAX_ENTRIES} positions"))
    errors: list[FieldError] = []
    entries: list[PositionEntry] = []
    seen: dict[tuple[str, date], int] = {}
    for place, row in enumerate(rows):
        fields = _fields(row, f"[{place}]", errors)
        if fields is None:
            continue
        entry = PositionEntry(portfolio_id, user_id, **fields)
        if (first := seen.setdefault((entry.symbol, entry.valid_from), place)) != place:
            errors.append(FieldError(f"[{place}].symbol", f"{entry.symbol} of {entry.valid_from} is also in [{first}]"))
        entries.append(entry)
    if errors:
        raise InvalidEntries(*errors[:MAX_ERRORS])
    return entries


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        found[name] = GIVEN_TWICE if name in found else value
    return found


def _fields(row: object, path: str, errors: list[FieldError]) -> dict[str, Any] | None:
    """The fields of one entry; None if a field is invalid. Each invalid field adds an error to `errors`."""
    if not isinstance(row, dict):
        errors.append(FieldError(path, "not an object"))
        return None
    found: dict[str, Any] = {}
    for name in (*FIELDS, *(name for name in row if name not in FIELDS)):
        try:
            found[name] = FIELDS.get(name, UNKNOWN_FIELD).read(row.get(name, MISSING))
        except ValueError as error:
            errors.append(FieldError(f"{path}.{name[:40]}", str(error)))
    return found if row.keys() == FIELDS.keys() == found.keys() else None


def _symbol(value: object) -> str:
    return read_symbol(_text(value))


def _quantity(value: object) -> Decimal:
    _check_given_once(value)
    if not isinstance(value, str) or not QUANTITY.fullmatch(value):
        raise ValueError("not a decimal number of zero or more")
    quantity = Decimal(value)
    if quantity >= QUANTITY_LIMIT:
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
    if value is GIVEN_TWICE:
        raise ValueError("given twice")


def _unknown(_: object) -> None:
    raise ValueError("no such field")


UNKNOWN_FIELD = Field(_unknown, {})
FIELDS: Mapping[str, Field] = {
    "symbol": Field(_symbol, schemas.text_of(SYMBOL.pattern)),
    "quantity": Field(
        _quantity,
        {
            "description": f"Below {QUANTITY_LIMIT:f}, in steps of {SMALLEST_QUANTITY:f}; 0 closes the position.",
            "anyOf": [
                schemas.text_of(QUANTITY.pattern) | {"format": "decimal"},
                {"type": "number", "minimum": 0, "exclusiveMaximum": int(QUANTITY_LIMIT)},
            ],
        },
    ),
    "valid_from": Field(
        _date,
        schemas.DAY | {"pattern": schemas.days_between(EARLIEST, LATEST), "description": f"{EARLIEST} to {LATEST}."},
    ),
}
"""The fields of an entry by name; an entry has all of them and no others."""
