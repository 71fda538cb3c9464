"""The JSON of the API. Money, fractions and every other decimal are strings in plain notation, never binary floats."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from aiohttp import web

from runtime.escape import one_line
from service.portfolio.records import HistoryRow, JobRun, LiveValue, Loading


def to_json(answer: object) -> str:
    """Compact JSON; see `_plain` for what is written how."""
    return json.dumps(answer, default=_plain, separators=(",", ":"), allow_nan=False)


def json_response(
    body: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An HTTP answer with that JSON."""
    return web.json_response(body, status=status, headers=headers, dumps=to_json)


def _plain(value: object) -> str:
    """Decimals in plain notation, instants in UTC as ISO 8601, dates as YYYY-MM-DD, ids as text."""
    match value:
        case Decimal():
            return format(value, "f")
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case UUID():
            return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def live_value(value: LiveValue) -> dict[str, Any]:
    """A portfolio's latest value, in dollars."""
    return {
        "portfolio_id": value.portfolio_id,
        "session_date": value.session_date,
        "as_of": value.as_of,
        "value": value.value,
        "day_open": value.day_open,
        "day_high": value.day_high,
        "day_low": value.day_low,
        "day_change": value.day_change,
        "priced_fraction": value.priced_fraction,
        "unpriced_symbols": value.unpriced_symbols,
        "unpriced_count": value.unpriced_count,
        "stale": value.stale,
        "oldest_price_at": value.oldest_price_at,
        "token": value.token,
    }


def history_row(row: HistoryRow) -> dict[str, Any]:
    """A portfolio's value at the end of one session, in dollars."""
    return {
        "date": row.date,
        "kind": row.kind,
        "value": row.value,
        "priced_fraction": row.priced_fraction,
        "stale": row.stale,
        "origin": row.origin,
        "revision": row.revision,
        "written_at": row.written_at,
        "token": row.token,
    }


def job_run(run: JobRun) -> dict[str, Any]:
    """The latest run of a job."""
    return {
        "session_date": run.session_date,
        "status": run.status,
        "rows_written": run.rows_written,
        "rows_added": run.rows_added,
        "rows_changed": run.rows_changed,
        "attempts": run.attempts,
        "error": None if run.error is None else one_line(run.error, 300),
        "holder": one_line(run.holder),
        "token": run.token,
        "started_at": run.started_at,
        "updated_at": run.updated_at,
        "finished_at": run.finished_at,
    }


def loading(progress: Loading) -> dict[str, Any]:
    """How many portfolios' positions the leader, whichever task it is, has loaded, of how many."""
    return {"portfolios_done": progress.done, "portfolios": progress.total}
