"""What the store holds, as plain records: money is Decimal, instants are aware, dates are the exchange's."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

JobName = Literal["eod", "snapshot", "reconstruction"]
Origin = Literal["captured", "settled", "reconstructed"]
RunStatus = Literal["running", "done"]
Settle = Literal["none", "stale", "all"]
"""Which of the history rows that are there a write sets right."""


@dataclass(frozen=True, slots=True)
class LiveValue:
    """A portfolio's latest value, in dollars."""

    portfolio_id: UUID
    session_date: date
    as_of: datetime
    value: Decimal | None
    """None: not one of its positions has a price."""
    day_open: Decimal | None
    """What today's positions were worth at the session's first prices; a symbol that has had none counts as it is."""
    day_high: Decimal | None
    day_low: Decimal | None
    priced_fraction: Decimal
    """Of the positions, those that have a price and so are in `value`; 1 for an empty portfolio."""
    stale: bool
    """Whether some price was carried forward, or old, when this was written; `Freshness` knows if it is by now."""
    oldest_price_at: datetime | None
    """When the oldest price in `value` was made: `as_of` minus this is its age."""
    token: int
    unpriced_symbols: list[str] = field(default_factory=list)
    """The symbols that it holds and that have no price, in alphabetical order; of many, the first 20."""
    unpriced_count: int = 0
    """The number of all of them."""

    @property
    def day_change(self) -> Decimal | None:
        """What the prices have done to today's positions since the session's first prices; a deposit is no gain."""
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
    """The newest term of a lease that has taken it up in the database."""

    lease: str
    token: int
    holder: str
    taken_at: datetime


@dataclass(frozen=True, slots=True)
class Loading:
    """How many portfolios' positions a term has loaded, and of how many."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a run is: every session before `session_date` is done or skipped, in it each portfolio up to that one."""

    session_date: date
    portfolio_id: UUID | None
    """None: the session's prices are in, no portfolio is."""


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run: of a job, for a session; never for the time of running."""

    job: JobName
    session_date: date
    status: RunStatus
    cursor: Cursor | None
    skipped: list[date]
    """The sessions before the cursor's that had no prices, so that they are to be tried again."""
    rows_written: int
    rows_added: int
    rows_changed: int
    """Those that have another value than before; what they had is kept. The rest of `rows_written` became settled."""
    attempts: int
    error: str | None
    """Why the last attempt failed."""
    holder: str
    token: int
    started_at: datetime
    updated_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Written:
    """What a write of history rows did."""

    rows: int = 0
    added: int = 0
    changed: int = 0
    """Those that have another value than before; the rest of `rows` only became settled."""


@dataclass(frozen=True, slots=True)
class PositionEntry:
    """From `valid_from` on, this portfolio of this user holds this quantity of the symbol; 0 closes the position."""

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
    """The first price that was made in that session; until there is one, the price."""


@dataclass(frozen=True, slots=True)
class Close:
    """A symbol's closing price, in dollars, of the session of that date."""

    symbol: str
    session_date: date
    close: Decimal
    at: datetime
    provisional: bool
    """No source had it: it is the last price before the session's close, made at `at`."""

    def is_official(self, day: date) -> bool:
        """Whether it is that day's close, and no other price that stands in for it."""
        return self.session_date == day and not self.provisional


def job_run(row: Iterable[tuple[str, Any]]) -> JobRun:
    """The columns of a row of `job_run` as a record."""
    fields = dict(row)
    cursor_date, cursor_portfolio = fields.pop("cursor_date"), fields.pop("cursor_portfolio")
    return JobRun(cursor=None if cursor_date is None else Cursor(cursor_date, cursor_portfolio), **fields)
