"""Reads CSV files, plain or gzipped, row by row. Errors name the line and the column."""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TypeVar, cast

from runtime.escape import one_line

GZIP_MAGIC = b"\x1f\x8b"
MAX_FIELD, MAX_VALUE_SHOWN = 1000, 60
MAX_HEADER_SHOWN = 120
"""Characters of an invalid header that the error shows."""
SEPARATORS = {";": "';'", "\t": "a tab", "|": "'|'"}
KINDS = {
    b"\xff\xfe": "the file is UTF-16",
    b"\xfe\xff": "the file is UTF-16",
    b"PK\x03\x04": "the file is a spreadsheet or a zip archive",
    GZIP_MAGIC: "the file is gzipped twice",
}
"""First bytes of files that are not CSV in UTF-8, each with the text for the error."""
Value = TypeVar("Value")


class BadFile(Exception):
    """An invalid or unreadable file. The text is one line that begins with the file's name or path."""


class CsvFile:
    """A CSV file whose header has exactly these columns, in any order."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        self._columns = columns
        self._line = 1

    def bad(self, problem: str, *, line: int | None = None, column: str | None = None) -> BadFile:
        """Return the error for a problem in a line, by default the line that was read last."""
        place = f"{one_line(self._path.name)}, line {line or self._line}"
        return BadFile(f"{place}, {column}: {problem}" if column else f"{place}: {problem}")

    def rows(self, read: Callable[[int], object] = lambda _: None) -> Iterator[tuple[int, dict[str, str]]]:
        """Each row with the number of its line.

        Args:
            read: called with the number of bytes of the file that have been read.

        Raises:
            BadFile: the file cannot be read, or is not a CSV file with these columns.
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
                        continue  # an empty line, or a spreadsheet's row of empty cells
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
        """The column names, and the number of fields in the header, including a spreadsheet's empty columns."""
        fields = records.next()
        if fields is not None and ",".join(fields).strip().lower() == "sep=,":  # written by spreadsheets
            fields = records.next()
        if fields is None:
            raise self.bad("the file is empty; the header must be " + ",".join(self._columns))
        self._line = records.line
        header, width = [name.strip() for name in fields], len(fields)
        while header and not header[-1]:
            header.pop()
        self._check(header, ",".join(fields))
        return header, width

    def _check(self, header: list[str], line: str) -> None:
        """Refuse a header unless it has exactly these columns.

        `line` is the header as it is in the file, without quotes.
        """
        wanted = ",".join(self._columns)
        found = one_line(",".join(header), MAX_HEADER_SHOWN)
        missing = [name for name in self._columns if name not in header]
        if len(missing) == len(self._columns):
            separator = next((name for mark, name in SEPARATORS.items() if mark in line), None)
            guess = f"; the separator seems to be {separator}, but it must be a comma" if separator else ""
            raise self.bad(f"the header must be {wanted}, but it is {found!r}{guess}")
        if missing:
            raise self.bad(
                f"the column is missing; the header must be {wanted}, but it is {found!r}", column=missing[0]
            )
        for place, name in enumerate(header):
            if name not in self._columns or name in header[:place]:
                problem = "given twice" if name in self._columns else "unknown column"
                raise self.bad(f"{problem}; the header must be {wanted}", column=one_line(repr(name)))

    def value(self, row: dict[str, str], column: str, read: Callable[[str], Value]) -> Value:
        """The value of a field.

        Raises:
            BadFile: `read` raised ValueError.
        """
        try:
            return read(row[column])
        except ValueError as error:
            shown = repr(row[column][:MAX_VALUE_SHOWN]) + "..." * (len(row[column]) > MAX_VALUE_SHOWN)
            raise self.bad(f"{shown} is {error}", column=column) from None


class _OpenQuote(csv.Error):
    """A quote that opens in the field at `place` of a record's first line, and does not close on that line."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place


class _Records:
    """The records of a text. No valid value contains a line break, so each record is one line."""

    def __init__(self, text: Iterable[str]) -> None:
        csv.field_size_limit(MAX_FIELD)
        self.line = 0
        """The line of the last record, valid or not."""
        self._first = ""
        self._reader = csv.reader(self._checked(text), strict=True)

    @property
    def lines_read(self) -> int:
        """The number of lines that the parser has read."""
        return self._reader.line_num

    def next(self) -> list[str] | None:
        """The next record; None at the end.

        Raises:
            csv.Error, _OpenQuote: the record is not CSV.
            UnicodeEncodeError: the record has a byte that is not UTF-8.
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
        """The error for a record with an open quote.

        A lenient parser reads everything after the open quote as the last field, whose index is the place.
        """
        return _OpenQuote(len(next(csv.reader([self._first]))) - 1)

    def _checked(self, text: Iterable[str]) -> Iterator[str]:
        """The lines, each checked for UTF-8. The decoder reads many lines at once, so its errors name no line."""
        for line in text:
            if not line.isascii():
                line.encode()
            self._first = self._first or line
            yield line
