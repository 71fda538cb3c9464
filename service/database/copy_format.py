"""Conversion between Postgres's binary COPY format and numpy arrays."""

from dataclasses import dataclass
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from service.portfolio.positions import Flags, Ids, Numbers
from service.portfolio.valuation import VALUE_UNITS, Values

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

VALUE_DIGITS, FRACTION_DIGITS = 5, 2
"""Numbers of base-10,000 digits in a value and in a fraction. The last digit holds the four decimal places."""
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
"""A row of `staged_value`; see `stage_table.sql`."""


def read_ids(copied: bytes | bytearray) -> Ids:
    """The ids in the complete output of a COPY TO of ids."""
    body = _body(copied)
    if len(body) % ID_ROW.itemsize:
        raise ValueError("invalid COPY data for a column of ids")
    return np.ascontiguousarray(np.frombuffer(body, ID_ROW)["id"])


@dataclass(frozen=True, slots=True)
class PositionRows:
    """The rows of `positions_between.sql` or `positions_of.sql`, reversed into key order."""

    ids: Ids
    counts: Numbers
    """Number of positions of each portfolio, closed ones included."""
    positions: NDArray[np.void]
    """Rows of `POSITION`; the positions of a portfolio are adjacent."""


def read_position_rows(copied: bytes | bytearray) -> PositionRows:
    """The rows in the complete output of a COPY TO of ids and packed positions."""
    body = bytes(_body(copied))  # slices of bytes are not tracked by the garbage collector
    heads, packed, at = [], [], 0
    while at + HEAD_ROW.itemsize <= len(body):
        end = at + HEAD_ROW.itemsize
        (size,) = SIZE.unpack_from(body, end - SIZE.size)
        heads.append(body[at:end])
        packed.append(body[end : end + size])
        at = end + size
    if at != len(body):
        raise ValueError("invalid COPY data for ids and packed positions")
    rows = np.frombuffer(b"".join(heads), HEAD_ROW)
    positions = np.frombuffer(b"".join(packed), POSITION)
    counts = rows["size"].astype(np.int64) // POSITION.itemsize
    return PositionRows(np.ascontiguousarray(rows["id"][::-1]), counts[::-1], positions[::-1])


def _body(copied: bytes | bytearray) -> memoryview:
    if not copied.startswith(HEADER) or not copied.endswith(TRAILER):
        raise ValueError("incomplete COPY data")
    return memoryview(copied)[len(HEADER) : len(copied) - len(TRAILER)]


def copy_rows(values: Values) -> bytes:
    """The values as rows of a COPY FROM into `staged_value`, without `HEADER` and `TRAILER`."""
    rows = np.zeros(len(values), VALUE_ROW)
    rows["fields"] = 7
    rows["id_size"], rows["id"] = 16, values.ids
    _fill_numeric(rows["value"], values.value)
    _fill_numeric(rows["day_open"], values.day_open)
    _fill_numeric(rows["fraction"], values.fraction)
    _fill_flags(rows, "known", values.known)
    _fill_flags(rows, "stale", values.stale)
    rows["oldest_size"], rows["oldest"] = 8, values.oldest
    return rows.tobytes()


def _fill_numeric(field: NDArray[np.void], units: Numbers) -> None:
    """Write ten-thousandths as numerics. All have the same number of digits; Postgres drops the leading zeros."""
    count = field["digit"].shape[1]
    field["size"] = 8 + 2 * count
    field["digits"], field["weight"], field["places"] = count, count - 2, 4
    field["sign"] = np.where(units < 0, NEGATIVE, POSITIVE)
    rest = np.abs(units)
    for place in range(count - 1, -1, -1):
        rest, field["digit"][:, place] = np.divmod(rest, VALUE_UNITS)


def _fill_flags(rows: NDArray[np.void], name: str, flags: Flags) -> None:
    rows[f"{name}_size"], rows[name] = 1, flags
