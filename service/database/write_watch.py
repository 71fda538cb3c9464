"""What becomes of this process's writes: whether a leader commits what it has to write, and why the database refuses.

A leader whose writes all fail resigns, so that a task with better connections can lead. Where no task can write, the
lead must not go round: a term then lasts as long as the trouble has lasted so far, so that each term is twice as long
as the one before it, whichever task leads. No clock is read but the one that is given.
"""

import time
from collections.abc import Callable

NOTHING_COMMITTED_LIMIT = 30.0
"""Seconds without a commit, though a write was due and failed, after which a leader resigns."""
LONGEST_LIMIT = 900.0
"""Seconds that this limit grows to where no task can write."""
PAUSE = 15.0, 60.0
"""Seconds until a task that resigned so campaigns again: at first, and at most."""
TROUBLE_REMEMBERED = 300.0
"""Seconds after which a refused write says nothing of the database any more, where nobody writes meanwhile."""
READ_ONLY = "25006"
LASTING_CLASSES = (READ_ONLY, "53", "58")
"""SQLSTATEs, or their first digits, of a database that takes no writes: read-only, a full disk, an error of a disk."""


class LeaseWrites:
    """The writes of this process's terms of one lease."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due_since: float | None = None
        self._failures = 0
        self._limit = NOTHING_COMMITTED_LIMIT
        self._barren_terms = 0
        self.on_change: Callable[[], None] = lambda: None
        """Called when `left` may have changed."""

    def begin_term(self, trouble: float = 0.0) -> None:
        """Begin a term on a database that this process has known for `trouble` seconds to take no writes."""
        self._due_since, self._failures = None, 0
        own = NOTHING_COMMITTED_LIMIT * 2.0 ** min(self._barren_terms, 10)
        self._limit = min(max(own, trouble), LONGEST_LIMIT)

    def due(self) -> None:
        """Record that something is to be written from now on, if it was not already."""
        if self._due_since is None:
            self._due_since = self._clock()

    def failed(self) -> None:
        """Record that an attempt at the writing, or at what has to be read before it, has failed.

        One failure alone ends no term: the next attempt is made on another connection. That is unless it took so long
        that the limit has passed.
        """
        self.due()
        self._failures += 1
        self.on_change()

    def committed(self) -> None:
        """Record that a piece of the work was committed."""
        self._barren_terms = 0
        self.cleared()

    def cleared(self) -> None:
        """Record that nothing is due any more, or a commit that is not of the work itself."""
        self._due_since, self._failures = None, 0
        self.on_change()

    def left(self) -> float | None:
        """Seconds until the term should end; None while too little has failed since the last commit."""
        if self._due_since is None or not self._failures:
            return None
        left = max(0.0, self._due_since + self._limit - self._clock())
        return left if self._failures > 1 or not left else None

    def give_up(self) -> float:
        """Record that the term ended for that reason; returns for how many seconds nothing had been committed."""
        since = self._clock() if self._due_since is None else self._due_since
        self._barren_terms += 1
        return self._clock() - since

    @property
    def pause(self) -> float:
        """Seconds until this process should campaign again."""
        first, most = PAUSE
        return min(first * 2.0 ** max(min(self._barren_terms, 10) - 1, 0), most)


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
        """Why the database refused the last write, if it did and that was `TROUBLE_REMEMBERED` seconds ago at most."""
        return self._trouble if self._clock() - self._trouble_at < TROUBLE_REMEMBERED else None

    def refused(self, sqlstate: str | None, reason: str) -> None:
        """Record that the database refused a write."""
        if sqlstate is not None and sqlstate.startswith(LASTING_CLASSES):
            self._trouble, self._trouble_at = reason, self._clock()
            self._was_read_only = sqlstate == READ_ONLY

    def accepted(self) -> None:
        """Record that the database committed a write."""
        self._trouble = None

    def not_read_only(self) -> None:
        """Record that the database says that it is not read-only; of a disk that is full it knows nothing."""
        if self._was_read_only:
            self._trouble = None
