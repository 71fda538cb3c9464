"""A CSV file, plain or gzipped, a row at a time. Errors name the line and the column."""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TypeVar, cast

from runtime.escape import one_line

GZIP_MAGIC = b"\x1f\x8b"
LONGEST_FIELD, LONGEST_SHOWN = 1000, 60
FOUND_SHOWN = 120
"""Characters of a wrong header that its error repeats."""
SEPARATORS = {";": "';'", "\t": "a tab", "|": "'|'"}
KINDS = {
    b"\xff\xfe": "the file is UTF-16",
    b"\xfe\xff": "the file is UTF-16",
    b"PK\x03\x04": "the file is a spreadsheet or a zip archive",
    GZIP_MAGIC: "the file is gzipped twice",
}
"""What other files begin with."""
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
        plain = io.BufferedReader(cast("io.RawIOBase", gzip.GzipFile(fileobj=raw))) if packed else raw
        self._check_kind(cast("io.BufferedReader", plain).peek(4))
        with io.TextIOWrapper(plain, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            records, header = _Records(text), list[str]()
            try:
                header, width = self._header(records)
                while (fields := records.next()) is not None:
                    self._line = records.line
                    if not any(field.strip() for field in fields):
                        continue  # an empty line, or a sheet's rows of blanks and commas
                    while len(header) < len(fields) <= width and not fields[-1].strip():
                        fields.pop()
                    if len(fields) != len(header):
                        raise self.bad(f"{len(fields)} fields where the header has {len(header)}")
                    yield self._line, dict(zip(header, (field.strip() for field in fields), strict=True))
                    if self._line % 1000 == 0:
                        read(raw.tell())
            except UnicodeEncodeError:
                raise self.bad("a byte is not UTF-8", line=records.lines_read + 1) from None
            except _OpenQuote as quote:
                column = header[quote.place] if quote.place < len(header) else None
                raise self.bad(
                    "a quote opens here and does not close on this line", line=records.line, column=column
                ) from None
            except csv.Error as error:
                raise self.bad(f"not CSV: {error}", line=records.line) from error
            read(raw.tell())

    def _check_kind(self, head: bytes) -> None:
        for magic, kind in KINDS.items():
            if head.startswith(magic):
                raise self.bad(f"{kind}; a CSV file in UTF-8 is needed")

    def _header(self, records: "_Records") -> tuple[list[str], int]:
        """The names, and how many fields a line may have: a sheet may have empty columns at its right edge."""
        fields = records.next()
        if fields is not None and ",".join(fields).strip().lower() == "sep=,":  # a spreadsheet's word for the comma
            fields = records.next()
        if fields is None:
            raise self.bad("the file is empty; the header is " + ",".join(self._columns))
        self._line = records.line
        header, width = [name.strip() for name in fields], len(fields)
        while header and not header[-1]:
            header.pop()
        self._check(header, ",".join(fields))
        return header, width

    def _check(self, header: list[str], line: str) -> None:
        """Refuse a header without these columns; `line` is the header as it was written, quotes apart."""
        wanted = ",".join(self._columns)
        found = one_line(",".join(header), FOUND_SHOWN)
        missing = [name for name in self._columns if name not in header]
        if len(missing) == len(self._columns):
            separator = next((name for mark, name in SEPARATORS.items() if mark in line), None)
            guess = f"; the separator seems to be {separator}, and has to be a comma" if separator else ""
            raise self.bad(f"the header is {wanted}, but {found!r} was found{guess}")
        if missing:
            raise self.bad(f"the column is missing; the header is {wanted}, but {found!r} was found", column=missing[0])
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


class _OpenQuote(csv.Error):
    """A quote that opens in a record's first line, in the field at `place`, and does not close there."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place


class _Records:
    """The records of a text. None of our values has a line break, so each record is one line."""

    def __init__(self, text: Iterable[str]) -> None:
        csv.field_size_limit(LONGEST_FIELD)
        self.line = 0
        """The line of the record that was read last, or could not be read."""
        self._first = ""
        self._reader = csv.reader(self._checked(text), strict=True)

    @property
    def lines_read(self) -> int:
        """How many lines the parser has taken."""
        return self._reader.line_num

    def next(self) -> list[str] | None:
        """The next record; None at the end.

        Raises:
            csv.Error, _OpenQuote: the record is not CSV.
            UnicodeEncodeError: a byte of it is not UTF-8.
        """
        self.line, self._first = self._reader.line_num + 1, ""
        try:
            fields = next(self._reader, None)
        except UnicodeEncodeError:
            if self._reader.line_num < self.line:
                raise
            raise self._open_quote() from None
        except csv.Error as error:
            if self._reader.line_num > self.line or "end of data" in str(error):
                raise self._open_quote() from None
            raise
        if fields is not None and self._reader.line_num > self.line:
            raise self._open_quote()
        return fields

    def _open_quote(self) -> _OpenQuote:
        """What the first line of the record holds, as far as a lenient parser sees: its last field has the quote."""
        return _OpenQuote(len(next(csv.reader([self._first]))) - 1)

    def _checked(self, text: Iterable[str]) -> Iterator[str]:
        """The lines; UnicodeEncodeError at one that is not text. Many are decoded at once, which names no line."""
        for line in text:
            if not line.isascii():
                line.encode()
            self._first = self._first or line
            yield line
