"""The sessions of a market.

A session is one trading day of an exchange. All instants are aware and in UTC. All dates are dates in New York, never
the server's.
"""

import logging
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

import holidays

logger = logging.getLogger(__name__)

NEW_YORK = ZoneInfo("America/New_York")
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Session:
    """One trading day, open from `open` until just before `close`, both aware and in UTC."""

    date: date
    open: datetime
    close: datetime

    def __contains__(self, instant: datetime) -> bool:
        """Whether the market is open at that instant."""
        return self.open <= instant < self.close


class Calendar(Protocol):
    """The sessions of one market. A calendar has to implement `session`; the rest follows from it.

    Every `datetime` argument must be aware. The searches assume that a session begins and ends within its New York
    date, midnight included.
    """

    name: str

    @abstractmethod
    def session(self, day: date) -> Session | None:
        """The session of that date; None on a day without trading."""

    def current(self, now: datetime) -> Session | None:
        """The session at `now`; None while the market is closed."""
        session = self.session(_date_of(now))
        return session if session is not None and now in session else None

    def next_open(self, after: datetime) -> Session:
        """The first session that opens later than `after`."""
        day = _date_of(after)
        while (session := self.session(day)) is None or session.open <= after:
            day += DAY
        return session

    def last_closed(self, now: datetime) -> Session:
        """The latest session whose close is `now` or earlier."""
        day = _date_of(now)
        while (session := self.session(day)) is None or session.close > now:
            day -= DAY
        return session

    def sessions(self, first: date, last: date) -> list[Session]:
        """The sessions from `first` to `last`, both included, oldest first."""
        days = (first + n * DAY for n in range((last - first).days + 1))
        return [session for day in days if (session := self.session(day)) is not None]


class NyseCalendar(Calendar):
    """The New York Stock Exchange: 9:30 to 16:00 on weekdays, with its holidays and half days.

    The library gives a half day's closing time only as text in its label. If the label cannot be read, the day has no
    session and an error is logged: a missing closing price is better than one from the wrong hour.
    """

    name = "NYSE"

    OPEN = time(9, 30)
    CLOSE = time(16, 0)
    EARLY_CLOSE = re.compile(r"\(markets close at (\d{1,2}):([0-5]\d)pm\)")

    def __init__(self) -> None:
        self._holidays: Mapping[date, str] = holidays.financial_holidays("NYSE", language="en_US")
        self._half_days: Mapping[date, str] = holidays.financial_holidays(
            "NYSE", categories=holidays.HALF_DAY, language="en_US"
        )
        self._unreadable: set[date] = set()

    def session(self, day: date) -> Session | None:
        """The session of that date; None on weekends, holidays and half days of unknown length."""
        if day.isoweekday() > 5 or day in self._holidays:
            return None
        close: time | None = self.CLOSE
        if day in self._half_days:
            close = self._early_close(day, self._half_days[day])
        if close is None:
            return None
        return Session(day, _instant(day, self.OPEN), _instant(day, close))

    def _early_close(self, day: date, label: str) -> time | None:
        found = self.EARLY_CLOSE.search(label)
        if found is not None:
            hour, minute = int(found[1]) % 12 + 12, int(found[2])
            if self.OPEN < (close := time(hour, minute)) < self.CLOSE:
                return close
        if day not in self._unreadable:  # `session` is called at every tick
            self._unreadable.add(day)
            logger.error("no session on %s: cannot read the closing time of the half day %r", day, label)
        return None


class AroundTheClockCalendar(Calendar):
    """A market that never closes, for trials: each calendar day in New York is a session."""

    name = "24/7"

    def session(self, day: date) -> Session:
        """The session from midnight to midnight in New York: 23 or 25 hours when the clocks change."""
        return Session(day, midnight(day), midnight(day + DAY))


CALENDARS: Mapping[str, Callable[[], Calendar]] = {
    calendar.name: calendar for calendar in (NyseCalendar, AroundTheClockCalendar)
}
"""Calendars by their name in `MARKET_CALENDAR`."""


def midnight(day: date) -> datetime:
    """The beginning of that date in New York."""
    return _instant(day, time.min)


def _date_of(instant: datetime) -> date:
    return instant.astimezone(NEW_YORK).date()


def _instant(day: date, clock: time) -> datetime:
    return datetime.combine(day, clock, NEW_YORK).astimezone(UTC)
