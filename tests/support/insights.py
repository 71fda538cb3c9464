"""The part of CloudWatch Logs Insights' query language that docs/log-queries.md uses: a parser and an evaluator.

Commands: `fields`, `filter`, `stats ... by`, `sort`, `limit`. Anything else raises `ValueError`. A field that a row
lacks is None, and every comparison with None is false.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Test = Callable[[Row], bool]
Stage = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]

_TOKEN = re.compile(
    r"""\s*(?:(?P<regex>/(?:[^/\\]|\\.)+/)|(?P<string>"[^"]*"|'[^']*')|(?P<number>\d+(?:\.\d+)?)
    |(?P<name>@?[A-Za-z_][\w.]*)|(?P<sign><=|>=|!=|[=<>(),\[\]*]))""",
    re.VERBOSE,
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    ">": lambda a, b: bool(a > b),
    "<=": lambda a, b: bool(a <= b),
    ">=": lambda a, b: bool(a >= b),
}
_AGGREGATES: dict[str, Callable[[list[Any]], Any]] = {
    "count": len,
    "sum": sum,
    "max": lambda values: max(values, default=None),
    "min": lambda values: min(values, default=None),
    "avg": lambda values: sum(values) / len(values) if values else None,
    "latest": lambda values: values[-1] if values else None,
    "earliest": lambda values: values[0] if values else None,
}


class Query:
    """A parsed query.

    Raises:
        ValueError: the query does not match the grammar, or a command after `stats` names a field that is not a result
            of `stats`.
    """

    def __init__(self, text: str) -> None:
        self.fields_used: set[str] = set()
        """Fields of the log lines that the query reads."""
        self._made: set[str] | None = None
        self._stages = [self._stage(part) for part in _split(text)]

    def run(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """The result for rows with `@timestamp`.

        Without `sort`, rows are in order of time, newest first, and groups of `stats` in order of their oldest rows.
        """
        found = sorted(map(dict, rows), key=lambda row: str(row["@timestamp"]), reverse=True)
        for stage in self._stages:
            found = stage(found)
        return found

    def _stage(self, text: str) -> Stage:
        command, _, rest = text.partition(" ")
        tokens = _Tokens(rest)
        make = {
            "fields": self._fields,
            "filter": self._filter,
            "stats": self._stats,
            "sort": self._sort,
            "limit": self._limit,
        }.get(command)
        if make is None:
            raise ValueError(f"no command {command!r}: {text!r}")
        stage = make(tokens)
        tokens.end()
        return stage

    def _field(self, tokens: "_Tokens") -> str:
        name = tokens.take("name")
        if self._made is None:
            self.fields_used.add(name)
        elif name not in self._made:
            raise ValueError(f"{name!r} is not a result of stats")
        return name

    def _fields(self, tokens: "_Tokens") -> Stage:
        names = [self._field(tokens)]
        while tokens.skip(","):
            names.append(self._field(tokens))
        return lambda rows: [{**row, "@shown": names} for row in rows]

    def _filter(self, tokens: "_Tokens") -> Stage:
        test = self._either(tokens)
        return lambda rows: [row for row in rows if test(row)]

    def _either(self, tokens: "_Tokens") -> Test:
        tests = [self._both(tokens)]
        while tokens.skip("or"):
            tests.append(self._both(tokens))
        return lambda row: any(test(row) for test in tests)

    def _both(self, tokens: "_Tokens") -> Test:
        tests = [self._condition(tokens)]
        while tokens.skip("and"):
            tests.append(self._condition(tokens))
        return lambda row: all(test(row) for test in tests)

    def _condition(self, tokens: "_Tokens") -> Test:
        if tokens.skip("not"):
            inner = self._condition(tokens)
            return lambda row: not inner(row)
        if tokens.skip("("):
            inner = self._either(tokens)
            tokens.expect(")")
            return inner
        if tokens.skip("ispresent"):
            tokens.expect("(")
            present = self._field(tokens)
            tokens.expect(")")
            return lambda row: row.get(present) is not None
        name = self._field(tokens)
        if tokens.skip("like"):
            pattern = re.compile(tokens.take("regex")[1:-1])
            return lambda row: pattern.search(str(row.get(name, ""))) is not None
        if tokens.skip("in"):
            values = self._list(tokens)
            return lambda row: row.get(name) in values
        compare = _COMPARE[tokens.take("sign")]
        value = tokens.literal()
        return lambda row: row.get(name) is not None and compare(row[name], value)

    def _list(self, tokens: "_Tokens") -> list[Any]:
        tokens.expect("[")
        values = [tokens.literal()]
        while tokens.skip(","):
            values.append(tokens.literal())
        tokens.expect("]")
        return values

    def _stats(self, tokens: "_Tokens") -> Stage:
        columns = [self._aggregate(tokens)]
        while tokens.skip(","):
            columns.append(self._aggregate(tokens))
        by = []
        if tokens.skip("by"):
            by.append(self._field(tokens))
            while tokens.skip(","):
                by.append(self._field(tokens))
        self._made = {alias for alias, _, _ in columns} | set(by)

        def group(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
            for row in sorted(rows, key=lambda row: str(row["@timestamp"])):
                groups.setdefault(tuple(row.get(name) for name in by), []).append(row)
            return [
                {
                    "@shown": [*by, *(alias for alias, _, _ in columns)],
                    **dict(zip(by, key, strict=True)),
                    **{alias: aggregate(_values(members, name)) for alias, aggregate, name in columns},
                }
                for key, members in groups.items()
            ]

        return group

    def _aggregate(self, tokens: "_Tokens") -> tuple[str, Callable[[list[Any]], Any], str | None]:
        function = tokens.take("name")
        if function not in _AGGREGATES:
            raise ValueError(f"no aggregate {function!r}")
        tokens.expect("(")
        name = None if function == "count" and tokens.skip("*") else self._field(tokens)
        tokens.expect(")")
        tokens.expect("as")
        return tokens.take("name"), _AGGREGATES[function], name

    def _sort(self, tokens: "_Tokens") -> Stage:
        name = self._field(tokens)
        descending = tokens.skip("desc")
        if not descending:
            tokens.expect("asc")

        def order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return sorted(rows, key=lambda row: (row.get(name) is not None, row.get(name)), reverse=descending)

        return order

    def _limit(self, tokens: "_Tokens") -> Stage:
        number = int(tokens.take("number"))
        if not 0 < number <= 10_000:
            raise ValueError(f"limit {number} is not from 1 to 10000")
        return lambda rows: rows[:number]


def shown(rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    """The columns that a query shows, in its order."""
    return [tuple(row.get(name) for name in row["@shown"]) for row in rows]


def _values(rows: Sequence[Row], name: str | None) -> list[Any]:
    return list(rows) if name is None else [row[name] for row in rows if row.get(name) is not None]


def _split(text: str) -> Iterator[str]:
    """The commands of a query. `|` separates them, except in a string, a regular expression or a comment."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    parts = re.findall(r"""(?:[^|"'/]|"[^"]*"|'[^']*'|/(?:[^/\\]|\\.)+/)+""", "\n".join(lines))
    yield from (" ".join(part.split()) for part in parts)


class _Tokens:
    """The words of one command."""

    def __init__(self, text: str) -> None:
        self._words: list[tuple[str, str]] = []
        place = 0
        while place < len(text.rstrip()):
            found = _TOKEN.match(text, place)
            if found is None or found.lastgroup is None:
                raise ValueError(f"not in the grammar: {text[place:]!r}")
            self._words.append((found.lastgroup, found[found.lastgroup]))
            place = found.end()
        self._next = 0

    def skip(self, word: str) -> bool:
        """Skip this name or sign; return False if the next word is a different one."""
        kind, text = self._peek()
        if kind in ("name", "sign") and text == word:
            self._next += 1
            return True
        return False

    def expect(self, word: str) -> None:
        if not self.skip(word):
            raise ValueError(f"{word!r} is missing before {self._peek()[1]!r}")

    def take(self, kind: str) -> str:
        found, text = self._peek()
        if found != kind:
            raise ValueError(f"expected a {kind}, not {text!r}")
        self._next += 1
        return text

    def literal(self) -> str | float:
        kind, text = self._peek()
        if kind not in ("string", "number"):
            raise ValueError(f"{text!r} is not a string or number")
        self._next += 1
        return text[1:-1] if kind == "string" else float(text)

    def end(self) -> None:
        if self._next < len(self._words):
            raise ValueError(f"unexpected word {self._peek()[1]!r}")

    def _peek(self) -> tuple[str, str]:
        return self._words[self._next] if self._next < len(self._words) else ("end", "")
