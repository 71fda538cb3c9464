"""The times of the tracker's ticks: pure functions of the calendar and the time, the same for leaders and followers."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.market.calendar import Calendar, Session

EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class TickSchedule:
    """The slots of the ticks: multiples of the interval since the epoch.

    Every `datetime` argument must be aware.
    """

    calendar: Calendar
    interval: timedelta

    def slot_number(self, now: datetime) -> int:
        """The number of intervals from the epoch to `now`."""
        return (now - EPOCH) // self.interval

    def slot(self, now: datetime) -> datetime:
        """The latest slot that is not later than `now`."""
        return EPOCH + self.slot_number(now) * self.interval

    def session(self, now: datetime) -> Session:
        """The open session, or the next one."""
        return self.calendar.current(now) or self.calendar.next_open(now)

    def next_tick(self, now: datetime) -> datetime:
        """The first slot that is later than `now` and in a session."""
        due = self.slot(now) + self.interval
        return self._first_in(self.calendar.next_open(now)) if self.calendar.current(due) is None else due

    def missed_ticks(self, due: datetime, now: datetime, ticks: int) -> int:
        """The number of slots of a session from `due` to `now` that had no tick."""
        session = self.session(due)
        first = self.slot(due) if due in session else self._first_in(session)
        last = self.slot(min(now, session.close - timedelta.resolution))
        passed = (last - first) // self.interval + 1
        return max(0, passed - ticks)

    def _first_in(self, session: Session) -> datetime:
        return self.slot(session.open + self.interval - timedelta.resolution)
