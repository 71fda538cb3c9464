"""When the tracker's ticks are due: pure functions of the calendar and the time, the same for leaders and followers."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.market.calendar import Calendar, Session

EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Grid:
    """The places of the ticks: multiples of the interval since the epoch, so that two leaders in a row keep one grid.

    Every `datetime` handed in must be aware.
    """

    calendar: Calendar
    interval: timedelta

    def number(self, now: datetime) -> int:
        """How many intervals the epoch is past."""
        return (now - EPOCH) // self.interval

    def slot(self, now: datetime) -> datetime:
        """The latest place that is not later than `now`."""
        return EPOCH + self.number(now) * self.interval

    def session(self, now: datetime) -> Session:
        """The session that is open, or else the one that opens next."""
        return self.calendar.current(now) or self.calendar.next_open(now)

    def next_tick(self, now: datetime) -> datetime:
        """The first place that is later than `now` and in a session."""
        due = self.slot(now) + self.interval
        return self._first_in(self.calendar.next_open(now)) if self.calendar.current(due) is None else due

    def left_out(self, due: datetime, now: datetime, ticks: int) -> int:
        """How many places of a session have passed by `now`, from that of `due` on, beyond the ticks there were."""
        session = self.session(due)
        first = self.slot(due) if due in session else self._first_in(session)
        last = self.slot(min(now, session.close - timedelta.resolution))
        passed = (last - first) // self.interval + 1
        return max(0, passed - ticks)

    def _first_in(self, session: Session) -> datetime:
        return self.slot(session.open + self.interval - timedelta.resolution)
