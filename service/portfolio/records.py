"""Plain records of what the store holds. Money is Decimal, instants are aware, and dates are the exchange's."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

JobName = Literal["eod", "snapshot", "reconstruction"]
Origin = Literal["captured", "settled", "reconstructed"]
RunStatus = Literal["running", "done"]
Overwrite = Literal["none", "stale", "all"]
"""Existing history rows that a write may overwrite."""


@dataclass(frozen=True, slots=True)
class LiveValue:
    """A portfolio's latest value, in dollars."""

    portfolio_id: UUID
    session_date: date
    as_of: datetime
    value: Decimal | None
    """Value of the priced positions; None if no position has a price, or on `Values.overflow`."""
    day_open: Decimal | None
    """Value of the present positions at the session's first prices. A symbol without one counts at its last price."""
    day_high: Decimal | None
    day_low: Decimal | None
    priced_fraction: Decimal
    """Share of the positions that have a price and so are in `value`; 1 for an empty portfolio."""
    stale: bool
    """Whether a price was carried forward or too old at the write. `Freshness` checks again by the clock."""
    oldest_price_at: datetime | None
    """Time of the oldest price in `value`; the age of this price is `as_of` minus that time."""
    token: int
    unpriced_symbols: list[str] = field(default_factory=list)
    """Symbols held without a price, in alphabetical order, at most 20."""
    unpriced_count: int = 0
    """Number of all symbols held without a price."""

    @property
    def day_change(self) -> Decimal | None:
        """The change in value that is due to prices, since the session's first prices. A deposit is not a change."""
        return None if self.value is None or self.day_open is None else self.value - self.day_open


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """A portfolio's value at the end of one session, in dollars."""

    portfolio_id: UUID
    date: date
    kind: str
    value: Decimal
    priced_fraction: Decimal
    stale: bool
    origin: Origin
    revision: int
    written_at: datetime
    token: int


@dataclass(frozen=True, slots=True)
class Fence:
    """The newest term of a lease that has claimed the fence."""

    lease: str
    token: int
    holder: str
    taken_at: datetime


@dataclass(frozen=True, slots=True)
class Loading:
    """The number of portfolios whose positions a term has loaded, and their total."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """The progress of a run. Every session before `session_date` is done or skipped."""

    session_date: date
    portfolio_id: UUID | None
    """The last portfolio that is done in `session_date`; None if only the session's prices are stored."""


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run of a job for a session."""

    job: JobName
    session_date: date
    status: RunStatus
    cursor: Cursor | None
    skipped: list[date]
    """Sessions that had no prices. The cursor may have passed them; they are tried again."""
    rows_written: int
    rows_added: int
    rows_changed: int
    """Rows whose value, priced fraction or staleness changed; the old rows are kept as revisions.

    `rows_written` includes added and newly settled rows too.
    """
    attempts: int
    error: str | None
    """Why the last attempt failed."""
    holder: str
    token: int
    started_at: datetime
    updated_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class WriteCounts:
    """The numbers of history rows that a write affected."""

    rows: int = 0
    added: int = 0
    changed: int = 0
    """Rows whose value, priced fraction or staleness changed. `rows` includes added and newly settled rows too."""


@dataclass(frozen=True, slots=True)
class PositionEntry:
    """The quantity of a symbol that a user's portfolio holds from `valid_from` on; 0 closes the position."""

    portfolio_id: UUID
    user_id: UUID
    symbol: str
    quantity: Decimal
    valid_from: date


@dataclass(frozen=True, slots=True)
class Quote:
    """A symbol's latest known price, in dollars, and the session in which it became known."""

    symbol: str
    price: Decimal
    at: datetime
    session_date: date
    open: Decimal
    """First price made in that session; equal to `price` until there is one."""


@dataclass(frozen=True, slots=True)
class Close:
    """A symbol's closing price, in dollars, of the session of that date."""

    symbol: str
    session_date: date
    close: Decimal
    at: datetime
    provisional: bool
    """True if no source had the close. Then `close` is the last price before the end of the session, and `at` is
    the time of that price."""

    def is_official(self, day: date) -> bool:
        """Whether this is the close of that day and not a substitute."""
        return self.session_date == day and not self.provisional


def job_run(row: Iterable[tuple[str, Any]]) -> JobRun:
    """A row of `job_run` as a record."""
    fields = dict(row)
    cursor_date, cursor_portfolio = fields.pop("cursor_date"), fields.pop("cursor_portfolio")
    return JobRun(cursor=None if cursor_date is None else Cursor(cursor_date, cursor_portfolio), **fields)
