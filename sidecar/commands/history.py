"""`python -m sidecar history LEASE`: the last terms of a lease, newest first."""

from datetime import UTC, datetime, timedelta

from redis.exceptions import InvalidResponse

from sidecar.commands.connection import MALFORMED, CommandError, CommandRedis
from sidecar.commands.layout import Layout
from sidecar.commands.look import look
from sidecar.commands.report import Report
from sidecar.history import End, Term
from sidecar.redis.history import HISTORY, MOST_ENTRIES, history_keys, terms_in

HEAD = ("began (UTC)", "led for", "holder", "end")
"""Titles of the table's columns."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def history(redis: CommandRedis, lease: str, key: str, layout: Layout) -> Report:
    """Read the history of a lease.

    Raises:
        CommandError: Redis refuses, or does not answer.
    """
    try:
        terms = terms_in(await redis.run_script(HISTORY, history_keys(key), MOST_ENTRIES))
    except InvalidResponse:
        raise CommandError(MALFORMED) from None
    seen = await look(redis, key)
    now = _EPOCH + timedelta(microseconds=seen.now)
    rows = [HEAD, *(_row(term, now) for term in terms)]
    lines = layout.table(rows) if terms else [f"{lease}: the history contains no term"]
    return Report(lines, {"lease": lease, "terms": [term.as_json() for term in terms]})


def duration(seconds: float) -> str:
    """A time in seconds as text, in a suitable unit."""
    for unit, length, limit in (("s", 1, 100), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < limit:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 86_400:.1f} d"


def _row(term: Term, now: datetime) -> tuple[str, str, str, str]:
    ended = now if term.end is End.HOLDING else term.released_at
    led_for = "-" if ended is None else duration(max(0.0, (ended - term.acquired_at).total_seconds()))
    end = {End.RELEASED: term.reason or "released", End.HOLDING: "leads now"}.get(term.end, str(term.end))
    return f"{term.acquired_at:%Y-%m-%d %H:%M:%S}", led_for, term.holder, end
