"""Postgres's binary COPY format, as arrays of records."""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from service.portfolio.positions import Flags, Ids, Numbers
from service.portfolio.valuation import VALUE_UNITS, Values

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
ROWS_A_PART = 10_000

VALUE_DIGITS, FRACTION_DIGITS = 5, 2
"""Of a numeric, whose digits are worth ten thousand each: the last one holds the four decimal places."""
POSITIVE, NEGATIVE = 0x0000, 0x4000

ID_ROW = np.dtype([("fields", ">i2"), ("id_size", ">i4"), ("id", "S16")])
HEAD_ROW = np.dtype([*ID_ROW.descr, ("size", ">i4")])
SIZE = Struct(">i")
POSITION = np.dtype([("symbol", ">i8"), ("units", ">i8")])


def _numeric(digits: int) -> np.dtype[np.void]:
    names = "size", "digits", "weight", "sign", "places"
    kinds = ">i4", ">i2", ">i2", ">u2", ">i2"
    return np.dtype([*zip(names, kinds, strict=True), ("digit", ">i2", (digits,))])


VALUE_ROW = np.dtype(
    [
        *ID_ROW.descr,
        ("value", _numeric(VALUE_DIGITS)),
        ("day_open", _numeric(VALUE_DIGITS)),
        ("fraction", _numeric(FRACTION_DIGITS)),
        *(("known_size", ">i4"), ("known", "?")),
        *(("stale_size", ">i4"), ("stale", "?")),
        *(("oldest_size", ">i4"), ("oldest", ">i8")),
    ]
)
"""A row of `staged_value`: see `stage_table.sql`."""


def read_ids(copied: bytes | bytearray) -> Ids:
    """The ids of a whole COPY TO of ids."""
    body = _body(copied)
    if len(body) % ID_ROW.itemsize:
        raise ValueError("not what COPY sends for a column of ids")
    return np.ascontiguousarray(np.frombuffer(body, ID_ROW)["id"])


@dataclass(frozen=True, slots=True)
class Held:
    """The rows of `positions_between.sql`, turned round into key order."""

    ids: Ids
    counts: Numbers
    """How many positions each portfolio has, closed ones included."""
    positions: NDArray[np.void]
    """`POSITION`s, those of a portfolio next to each other."""


def read_held(copied: bytes | bytearray) -> Held:
    """What a whole COPY TO of ids and packed positions says."""
    body = bytes(_body(copied))  # a slice of it is nothing that the garbage collector would look at
    heads, packed, at = [], [], 0
    while at + HEAD_ROW.itemsize <= len(body):
        behind = at + HEAD_ROW.itemsize
        (size,) = SIZE.unpack_from(body, behind - SIZE.size)
        heads.append(body[at:behind])
        packed.append(body[behind : behind + size])
        at = behind + size
    if at != len(body):
        raise ValueError("not what COPY sends for ids and packed positions")
    rows = np.frombuffer(b"".join(heads), HEAD_ROW)
    positions = np.frombuffer(b"".join(packed), POSITION)
    counts = rows["size"].astype(np.int64) // POSITION.itemsize
    return Held(np.ascontiguousarray(rows["id"][::-1]), counts[::-1], positions[::-1])


def _body(copied: bytes | bytearray) -> memoryview:
    if not copied.startswith(HEADER) or not copied.endswith(TRAILER):
        raise ValueError("not the whole of what COPY sends")
    return memoryview(copied)[len(HEADER) : len(copied) - len(TRAILER)]


def copy_of(values: Values) -> Iterator[bytes]:
    """The values as a COPY FROM into `staged_value`, in parts."""
    yield HEADER
    for first in range(0, len(values), ROWS_A_PART):
        yield _part(values, slice(first, first + ROWS_A_PART))
    yield TRAILER


def _part(values: Values, rows: slice) -> bytes:
    ids: Ids = values.ids[rows]
    part = np.zeros(len(ids), VALUE_ROW)
    part["fields"] = 7
    part["id_size"], part["id"] = 16, ids
    _fill_numeric(part["value"], values.value[rows])
    _fill_numeric(part["day_open"], values.day_open[rows])
    _fill_numeric(part["fraction"], values.fraction[rows])
    _fill_flags(part, "known", values.known[rows])
    _fill_flags(part, "stale", values.stale[rows])
    part["oldest_size"], part["oldest"] = 8, values.oldest[rows]
    return part.tobytes()


def _fill_numeric(field: NDArray[np.void], units: Numbers) -> None:
    """Ten-thousandths as numerics; Postgres drops the zeros in front."""
    count = field["digit"].shape[1]
    field["size"] = 8 + 2 * count
    field["digits"], field["weight"], field["places"] = count, count - 2, 4
    field["sign"] = np.where(units < 0, NEGATIVE, POSITIVE)
    rest = np.abs(units)
    for place in range(count - 1, -1, -1):
        rest, field["digit"][:, place] = np.divmod(rest, VALUE_UNITS)


def _fill_flags(part: NDArray[np.void], name: str, flags: Flags) -> None:
    part[f"{name}_size"], part[name] = 1, flags
