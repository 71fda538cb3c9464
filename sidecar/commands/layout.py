"""Tables and lines for a terminal or a file, never wider than the limit."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

COLUMNS = 80
"""Limit of a table's width, in columns of a terminal."""

NARROWEST = 20
"""Minimum width of a layout, in columns, even if the terminal is narrower."""

_GAP = "  "
_INDENT = "  "


class Layout:
    """Lays text out in columns of a terminal. Wide letters fill two columns.

    Args:
        columns: the limit of a line.
        encoding: the encoding of the output; a character that it does not have is shown as an escape.
    """

    def __init__(self, columns: int = COLUMNS, encoding: str = "utf-8") -> None:
        self.columns = max(columns, NARROWEST)
        self._encoding = encoding
        self._ellipsis = "…" if self._printable("…") == "…" else "..."

    def table(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """The rows as lines. The widest columns are cut where a row is too wide; a cut text ends with an ellipsis."""
        cells = [[self._printable(cell) for cell in row] for row in rows]
        widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
        room = self.columns - len(_GAP) * (len(widths) - 1)
        while sum(widths) > room and max(widths) > 1:
            widths[widths.index(max(widths))] -= 1
        return [self.cut(_GAP.join(map(self._fill, row, widths)).rstrip()) for row in cells]

    def cut(self, text: str, columns: int | None = None) -> str:
        """The text, or its beginning and an ellipsis where it is too wide."""
        columns = self.columns if columns is None else columns
        text = self._printable(text)
        if width(text) <= columns:
            return text
        ellipsis = self._ellipsis[:columns]
        return _beginning(text, columns - len(ellipsis)) + ellipsis

    def wrapped(self, text: str) -> list[str]:
        """The text in lines that break between words, or within a word that is too long. Later lines are indented."""
        lines: list[str] = []
        line = " " * (len(text) - len(text.lstrip(" ")))
        for word in self._printable(text).split():
            if line.strip() and width(f"{line} {word}") > self.columns:
                lines.append(line)
                line = _INDENT
            line += f" {word}" if line.strip() else word
            while width(line) > self.columns:
                part = _beginning(line, self.columns)
                lines.append(part)
                line = _INDENT + line[len(part) :]
        return [*lines, line]

    def _fill(self, text: str, columns: int) -> str:
        text = self.cut(text, columns)
        return text + " " * (columns - width(text))

    def _printable(self, text: str) -> str:
        return text.encode(self._encoding, "backslashreplace").decode(self._encoding)


def width(text: str) -> int:
    """The columns that a terminal needs for a printable text."""
    return sum(map(_columns, text))


def _beginning(text: str, columns: int) -> str:
    return "".join(_within(text, columns))


def _within(text: Iterable[str], columns: int) -> Iterator[str]:
    for character in text:
        columns -= _columns(character)
        if columns < 0:
            return
        yield character


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
