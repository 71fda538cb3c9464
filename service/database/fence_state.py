"""The fence of a lease in the database: its stored token, whether the token can be right, and why it refuses a term.

The token of an elected term is a time in microseconds since the epoch, or slightly more. A stored token far ahead of
the clock refuses every term until the clock has caught up, which may take centuries.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runtime.escape import one_line
from service.database.connection import Connection
from service.database.sql import statement
from service.database.term import FencedTerm

MAX_LEAD = timedelta(days=1)
"""Maximum lead of a token over the database's clock. It is a day, so that a step of a clock does not stop elections."""

HOLDER_SHOWN = 80
"""Limit of a holder in an explanation, in characters."""

_TWO_PLACES = (
    "that holder leads now, the tasks do not share one Redis and LEASE_KEY:"
    " docs/redis.md, section 'Change what all tasks share'"
)
"""Another cause of a newer term: two separate elections, whose terms take the fence from each other."""


@dataclass(frozen=True, slots=True)
class FenceState:
    """A lease's row of `lease_fence`, and the database's time when the row was read."""

    token: int
    holder: str
    taken_at: datetime
    now: datetime
    now_token: int
    """The time `now` as a token: microseconds since the epoch."""

    @property
    def refuses_all(self) -> bool:
        """Whether the token is so far ahead that no term can have a larger one."""
        return too_far_ahead(self.token, self.now_token)


def too_far_ahead(token: int, now_token: int) -> bool:
    """Whether a token is more than `MAX_LEAD` ahead of the database's time."""
    return token > now_token + MAX_LEAD // timedelta(microseconds=1)


def time_of(token: int) -> str:
    """The instant of a token as text for people."""
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=token)).isoformat(" ", "seconds")
    except OverflowError:
        return "a time after the year 9999" if token > 0 else "a time before the year 1"


async def read_fence(connection: Connection, lease: str) -> FenceState | None:
    """The lease's row; None before any term has claimed the fence."""
    row = await connection.fetchrow(statement("fence"), lease)
    return None if row is None else FenceState(**row)


async def explain_refusal(connection: Connection, term: FencedTerm) -> str:
    """Why the database refuses the term, as one line, with the repair command if there is one."""
    lease, token = term.name, term.token
    now_token = await connection.fetchval("select (extract(epoch from clock_timestamp()) * 1000000)::bigint")
    if too_far_ahead(token, now_token):
        return (
            f"lease {lease}: the token {token} is more than a day ahead of the database's clock; "
            f"python -m sidecar fence {lease} repairs Redis's token"
        )
    state = await read_fence(connection, lease)
    if state is None:
        return f"lease {lease}: the term {token} has not claimed the fence in the database"
    stored = f"the database has the token {state.token} of {one_line(state.holder, HOLDER_SHOWN)}"
    if state.refuses_all:
        return (
            f"lease {lease}: {stored}, more than a day ahead of its clock, and refuses every term, such as {token}; "
            f"python -m service fence {lease} repairs it"
        )
    if state.token > token:
        return (
            f"lease {lease}: a term newer than {token} has claimed the fence: {stored}; "
            "if every term is refused, Redis's token is behind: "
            f"python -m sidecar fence {lease} --above {state.token}; if {_TWO_PLACES}"
        )
    return f"lease {lease}: the term {token} is not the newest in the database: {stored}"
