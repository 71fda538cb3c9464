"""The outcome of this process's writes: whether a leader commits due writes, and why the database refuses writes.

A leader whose writes all fail resigns, so that a task with a working connection can lead. While no task can write, the
lead must not move too often. So the limit for a term without a commit is at least the time that the outage had lasted
when the term began, up to `MAX_LIMIT`. Each such term is about twice as long as the term before it, even on another
task.
"""

import time
from collections.abc import Callable

NOTHING_COMMITTED_LIMIT = 30.0
"""Seconds after which a leader resigns if it has committed nothing although a write was due and has failed."""
MAX_LIMIT = 900.0
"""Maximum of a term's limit in seconds. The limit grows from `NOTHING_COMMITTED_LIMIT` while no task can write."""
RESIGN_PAUSE = 15.0, 60.0
"""Seconds until a task that resigned campaigns again: first pause and longest pause.

Both this pause and the limit depend on the number of terms without a commit, so `Backoff` is not used.
"""
TROUBLE_LIFETIME = 300.0
"""Seconds for which a refused write counts as the state of the database, unless a later write succeeds."""
READ_ONLY, DISK_FULL, SYSTEM_ERRORS = "25006", "53100", "58"
LASTING = (READ_ONLY, DISK_FULL, SYSTEM_ERRORS)
"""SQLSTATEs, or their first digits, of a database that takes no writes. A lack of connections or memory passes, and
prevents reads too, so it does not count."""


class LeaseWrites:
    """The writes of this process's terms of one lease."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due_since: float | None = None
        self._failures = 0
        self._limit = NOTHING_COMMITTED_LIMIT
        self._terms_without_commit = 0
        self.on_change: Callable[[], None] = lambda: None
        """Callback for a possible change of `remaining`."""

    def begin_term(self, trouble: float = 0.0) -> None:
        """Begin a term on a database that has taken no writes of this process for `trouble` seconds."""
        self._due_since, self._failures = None, 0
        own = NOTHING_COMMITTED_LIMIT * 2.0 ** min(self._terms_without_commit, 10)
        self._limit = min(max(own, trouble), MAX_LIMIT)

    def due(self) -> None:
        """Record that a write is due from now on, unless one was due already."""
        if self._due_since is None:
            self._due_since = self._clock()

    def failed(self, waited: float = 0.0) -> None:
        """Record that a write, or a read that has to come before it, failed. The write was due for `waited` seconds.

        One failure does not end the term, because the next attempt uses another connection. But if the write has been
        due for as long as the limit, one failure ends the term.
        """
        if self._due_since is None:
            self._due_since = self._clock() - waited
        self._failures += 1
        self.on_change()

    def committed(self) -> None:
        """Record a commit of the work. A commit ends an outage, so the limit is `NOTHING_COMMITTED_LIMIT` again."""
        self._terms_without_commit = 0
        self._limit = NOTHING_COMMITTED_LIMIT
        self.cleared()

    def cleared(self) -> None:
        """Record that no write is due any more. Also called at a commit outside the work, such as the fence's claim."""
        self._due_since, self._failures = None, 0
        self.on_change()

    def remaining(self) -> float | None:
        """Seconds until the term should end; None while too few writes have failed since the last commit."""
        if self._due_since is None or not self._failures:
            return None
        remaining = max(0.0, self._due_since + self._limit - self._clock())
        return remaining if self._failures > 1 or not remaining else None

    def give_up(self) -> float:
        """Record that the term ended because nothing was committed; returns the seconds without a commit."""
        since = self._clock() if self._due_since is None else self._due_since
        self._terms_without_commit += 1
        return self._clock() - since

    @property
    def pause(self) -> float:
        """Seconds until this process should campaign again."""
        first, most = RESIGN_PAUSE
        return min(first * 2.0 ** max(min(self._terms_without_commit, 10) - 1, 0), most)


class WriteWatch:
    """The writes of all stores of one process."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._leases: dict[str, LeaseWrites] = {}
        self._trouble: str | None = None
        self._trouble_at = 0.0
        self._was_read_only = False

    def of(self, lease: str) -> LeaseWrites:
        """The writes under that lease."""
        return self._leases.setdefault(lease, LeaseWrites(self._clock))

    @property
    def trouble(self) -> str | None:
        """Why the database takes no writes; None unless it refused one in the last `TROUBLE_LIFETIME` seconds."""
        return self._trouble if self._clock() - self._trouble_at < TROUBLE_LIFETIME else None

    def refused(self, sqlstate: str | None, reason: str) -> None:
        """Record that the database refused a write."""
        if sqlstate is not None and sqlstate.startswith(LASTING):
            self._trouble, self._trouble_at = reason, self._clock()
            self._was_read_only = sqlstate == READ_ONLY

    def accepted(self) -> None:
        """Record that the database committed a write."""
        self._trouble = None

    def not_read_only(self) -> None:
        """Record that the database reports that it is not read-only. The report does not cover a full disk."""
        if self._was_read_only:
            self._trouble = None
