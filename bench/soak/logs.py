"""The rule for a quiet log: few lines for each hand-over, and no warning without a cause. Only `read_log` does I/O."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.soak.leads import Ended

MAX_LINES = 20.0
"""Maximum number of log lines per hand-over, of all containers, on average. A run without faults has thirteen."""
ENDS = "term_ended", "work_ended"
"""Log events of a sidecar and of an API at the end of a term."""
_CALM = ("DEBUG", "INFO")


@dataclass(frozen=True)
class Line:
    """One line of a container's log; `at` is in ms since 1970, `level` is empty if the line is not a JSON object."""

    where: str
    at: float
    level: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def parse(where: str, text: str) -> Line:
    """Parse a line that a container wrote."""
    try:
        found = json.loads(text)
        at = datetime.fromisoformat(found["time"]).timestamp() * 1000
        return Line(where, at, str(found["level"]), str(found["message"]), found)
    except (ValueError, KeyError, TypeError):
        return Line(where, 0.0, "", text)


def read_log(path: Path) -> list[Line]:
    """Return the lines of a file; `task1-api.log` is the log of `task1-api`."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return [parse(path.stem, line.rstrip("\n")) for line in file]


def alarming(lines: Iterable[Line], excused: Callable[[Line], bool]) -> list[str]:
    """Return each kind of line that is above INFO or not a JSON object, once, with its count."""
    kinds: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], Line] = {}
    for line in lines:
        if line.level not in _CALM and not excused(line):
            kind = line.level, _without_numbers(line.message)
            kinds[kind] += 1
            first.setdefault(kind, line)
    return [_described(first[kind], number) for kind, number in kinds.most_common()]


def ended_terms(lines: Iterable[Line]) -> list[Ended]:
    """Return the ends of terms: a sidecar that no longer leads, and an API whose work has ended."""
    return [
        Ended(
            line.where,
            line.fields["lease"],
            line.fields["token"],
            line.fields["instance"],
            line.at,
            line.fields.get("reason", ""),
        )
        for line in lines
        if line.fields.get("event") in ENDS
    ]


def per_hand_over(lines: Sequence[Line], hand_overs: int) -> float:
    """Return the number of lines for each hand-over; without a hand-over, the number of lines."""
    return len(lines) / max(1, hand_overs)


def _described(line: Line, number: int) -> str:
    times = f" ({number} times)" if number > 1 else ""
    return f"{line.where}: {line.level or 'not JSON'}: {line.message[:200]}{times}"


def _without_numbers(text: str) -> str:
    return "".join("#" if letter.isdigit() else letter for letter in text)
