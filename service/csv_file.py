"""A CSV file, plain or gzipped, a row at a time; what is wrong with it is told with its line and column."""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TypeVar

from runtime.escape import one_line

GZIP_MAGIC = b"\x1f\x8b"
LONGEST_FIELD, LONGEST_SHOWN = 1000, 60
Value = TypeVar("Value")


class BadFile(Exception):
    """What is wrong, where: one line that begins with the file's name."""


class CsvFile:
    """The rows under a header with exactly these columns, in any order."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        self._columns = columns
        self._line = 1

    def bad(self, problem: str, *, line: int | None = None, column: str | None = None) -> BadFile:
        """The error to raise; at the line last read unless another is named."""
        place = f"{one_line(self._path.name)}, line {line or self._line}"
        return BadFile(f"{place}, {column}: {problem}" if column else f"{place}: {problem}")

    def rows(self, read: Callable[[int], object] = lambda _: None) -> Iterator[tuple[int, dict[str, str]]]:
        """Each row with its line; `read` is told how many bytes of the file have been read.

        Raises:
            BadFile: it cannot be read, or is no CSV file with these columns.
        """
        try:
            with self._path.open("rb") as raw:
                yield from self._rows(raw, read)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self.bad(f"the gzip file is damaged or cut off: {error}") from error
        except OSError as error:
            raise BadFile(f"{one_line(self._path)}: {error.strerror or error}") from error

    def _rows(self, raw: IO[bytes], read: Callable[[int], object]) -> Iterator[tuple[int, dict[str, str]]]:
        packed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        plain = gzip.GzipFile(fileobj=raw) if packed else raw
        with io.TextIOWrapper(plain, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            lines = csv.reader(map(_checked, text), strict=True)
            csv.field_size_limit(LONGEST_FIELD)
            try:
                header = [name.strip() for name in next(lines, [])]
                self._check(header)
                for fields in lines:
                    self._line = lines.line_num
                    if not fields:
                        continue  # an empty line
                    if len(fields) != len(header):
                        raise self.bad(f"{len(fields)} fields where the header has {len(header)}")
                    yield self._line, dict(zip(header, (field.strip() for field in fields), strict=True))
                    if self._line % 1000 == 0:
                        read(raw.tell())
            except UnicodeEncodeError:
                raise self.bad("a byte is not UTF-8", line=lines.line_num + 1) from None
            except csv.Error as error:
                self._line = lines.line_num
                raise self.bad(f"not CSV: {error}") from error
            read(raw.tell())

    def _check(self, header: list[str]) -> None:
        wanted = ",".join(self._columns)
        for name in self._columns:
            if name not in header:
                raise self.bad(f"the column is missing; the header is {wanted}", column=name)
        for place, name in enumerate(header):
            if name not in self._columns or name in header[:place]:
                what = "twice" if name in self._columns else "not a column of this file"
                raise self.bad(f"{what}; the header is {wanted}", column=one_line(repr(name)))

    def value(self, row: dict[str, str], column: str, read: Callable[[str], Value]) -> Value:
        """A field, read.

        Raises:
            BadFile: `read` raised ValueError.
        """
        try:
            return read(row[column])
        except ValueError as error:
            shown = repr(row[column][:LONGEST_SHOWN]) + "..." * (len(row[column]) > LONGEST_SHOWN)
            raise self.bad(f"{shown} is {error}", column=column) from None


def _checked(line: str) -> str:
    """The line; UnicodeEncodeError if it is no text. Many are decoded at once: an error there would name none."""
    if not line.isascii():
        line.encode()
    return line
