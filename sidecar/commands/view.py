"""The leases as `python -m sidecar watch` shows them, and each change as one line."""

from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sidecar.commands.layout import Layout
from sidecar.commands.leaders import HEAD, notes_on, row, time_left
from sidecar.commands.look import Look, document

REMEMBERED = 100
"""Maximum number of past changes that a terminal shows."""


class Change(NamedTuple):
    """A change of a lease, or of the connection to Redis: a line for people, and a JSON object for programs."""

    at: datetime
    text: str
    document: dict[str, Any]

    @property
    def line(self) -> str:
        """The line with its time."""
        return f"{_instant(self.at)}  {self.text}"

    @property
    def answer(self) -> dict[str, Any]:
        """The object with its time."""
        return {"time": _instant(self.at), **self.document}


class View:
    """The leases as they were last seen.

    Args:
        leases: the names, in the order in which they are shown.
        place: where Redis is, for people.
        clock: monotonic seconds.
        now: the time of day.
        report: called with each change.
    """

    def __init__(
        self,
        leases: Mapping[str, str],
        place: str,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        report: Callable[[Change], None],
    ) -> None:
        self._place = place
        self._clock = clock
        self._now = now
        self._seen: dict[str, Look | None] = dict.fromkeys(leases)
        self._seen_at = dict.fromkeys(leases, 0.0)
        self._lost: str | None = None
        self._lost_at = 0.0
        self._report = report
        self._recent: deque[Change] = deque(maxlen=REMEMBERED)
        self.late: str | None = None
        """Why changes may be shown late."""

    def saw(self, lease: str, seen: Look) -> None:
        """Record a look at a lease, which shows that Redis answers."""
        if self._lost is not None:
            self._lost = None
            seconds = self._clock() - self._lost_at
            self._add(f"Redis answers again after {seconds:.0f} s", {"redis": "connected"})
        before, self._seen[lease], self._seen_at[lease] = self._seen[lease], seen, self._clock()
        if before is None or _facts(before) != _facts(seen):
            self._add(f"{lease}  {_text(seen)}", {"lease": lease, **document(seen)})

    def lost(self, why: str) -> None:
        """Record that Redis does not answer."""
        if self._lost is None:
            self._lost_at = self._clock()
            self._add(f"{why}; trying again", {"redis": "lost", "error": why})
        self._lost = why

    @property
    def is_known(self) -> bool:
        """Whether every lease was seen."""
        return None not in self._seen.values()

    def expires_in(self) -> float:
        """Seconds until the first of the seen keys expires, if none is renewed before."""
        left = [self._left(lease) for lease in self._seen]
        return min([each for each in left if each >= 0], default=3_600_000) / 1000

    def picture(self, layout: Layout, height: int) -> list[str]:
        """The leases as they are at this instant, and the last changes, in `height` lines or fewer."""
        table = self.table(layout)
        last = [layout.cut(f"{change.at:%H:%M:%S}  {change.text}") for change in reversed(self._recent)]
        head = layout.cut(f"{self._now():%H:%M:%S} UTC  {self._place}  (Ctrl-C ends)")
        return [head, "", *table, "", *last][:height]

    def table(self, layout: Layout) -> list[str]:
        """The leases as a table, and the notes about them."""
        rows, notes = [HEAD], []
        for lease, seen in self._seen.items():
            if seen is None:
                continue
            rows.append(row(lease, seen, "?" if self._lost else time_left(self._left(lease))))
            notes += notes_on(lease, seen)
        if self._lost is not None:
            notes.append(f"{self._lost}; trying again for {self._clock() - self._lost_at:.0f} s")
        elif self.late is not None:
            notes.append(f"a change may be shown a second late: {self.late}")
        return [*layout.table(rows), *(line for note in notes for line in layout.wrapped(note))]

    def _left(self, lease: str) -> int:
        """The remaining time of a key at this instant, in ms."""
        seen = self._seen[lease]
        if seen is None or seen.left < 0:
            return -1
        return max(0, seen.left - int((self._clock() - self._seen_at[lease]) * 1000))

    def _add(self, text: str, facts: dict[str, Any]) -> None:
        change = Change(self._now(), text, facts)
        self._recent.append(change)
        self._report(change)


def _facts(seen: Look) -> tuple[object, ...]:
    return seen.word, seen.holder, seen.token, seen.disable, seen.asked_to_step_down, seen.problem


def _text(seen: Look) -> str:
    left = f", {time_left(seen.left)} s left" if seen.left >= 0 else ""
    token = f", token {seen.token}" if seen.token else ""
    asked = ", asked to step down" if seen.asked_to_step_down else ""
    text = {
        "vacant": f"nobody leads{token}",
        "disabled": f"{seen.holder}{left}" + (f"; {seen.disable}" if seen.disable else ""),
        "held": f"held by {seen.holder or 'an empty value'}{token}{left}{asked}",
    }.get(seen.word, "")
    return "; ".join(part for part in (text, seen.trouble) if part)


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
