"""The responses of the public listener, and the errors of both listeners."""

import json
from typing import Literal

from pydantic import Field

from service.api.limits import MAX_ROWS
from service.api.position_body import MAX_ENTRIES, MAX_ERRORS
from service.api.response_types import (
    Count,
    Day,
    Fraction,
    Id,
    Instant,
    Money,
    PositiveCount,
    ResponseModel,
    Token,
    items,
)
from service.portfolio.records import Origin

MAX_UNPRICED = 20
"""Maximum number of symbols without a price that a live value names, as in the database's `unpriced_symbols`."""


class LiveValue(ResponseModel):
    """A portfolio's latest value."""

    portfolio_id: Id
    session_date: Day
    as_of: Instant
    value: Money | None = Field(description="Null if no position has a price, or on an overflow.")
    day_open: Money | None = Field(description="The value of the present positions at the session's first prices.")
    day_high: Money | None
    day_low: Money | None
    day_change: Money | None = Field(description="`value` minus `day_open`, so a deposit does not count as a gain.")
    priced_fraction: Fraction
    unpriced_symbols: list[str] = items(
        0, MAX_UNPRICED, f"The symbols of the portfolio that have no price: the first {MAX_UNPRICED}."
    )
    unpriced_count: Count = Field(description="The number of all symbols of the portfolio that have no price.")
    stale: bool = Field(description="A price was carried forward, or is old.")
    oldest_price_at: Instant | None
    token: Token


class HistoryRow(ResponseModel):
    """A portfolio's value at the end of a session."""

    date: Day
    kind: Literal["daily_eod"]
    value: Money
    priced_fraction: Fraction
    stale: bool
    origin: Origin
    revision: PositiveCount
    written_at: Instant
    token: Token


class History(ResponseModel):
    """Values at the end of sessions, oldest first."""

    portfolio_id: Id
    history: list[HistoryRow] = items(0, MAX_ROWS)


class Written(ResponseModel):
    """The result of a write of positions."""

    portfolio_id: Id
    written: int = Field(json_schema_extra={"minimum": 1, "maximum": MAX_ENTRIES})
    positions: PositiveCount = Field(description="The number of the portfolio's entries now, past ones included.")


class Health(ResponseModel):
    """Whether the task serves requests."""

    status: Literal["ok", "draining"]


class Error(ResponseModel):
    """Why a request failed."""

    error: str

    def to_json(self) -> str:
        """Compact JSON in ASCII. An error may repeat half a surrogate pair, which `model_dump_json` refuses."""
        return json.dumps(self.model_dump(), separators=(",", ":"))


class FieldError(Error):
    """The error of a field or parameter."""

    field: str


class FieldErrors(FieldError):
    """The first error, and all of them."""

    errors: list[FieldError] = items(1, MAX_ERRORS)
