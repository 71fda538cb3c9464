"""The log of the daily runs: the term, job, session, start, duration and rows of each attempt.

A run that fails is tried again each minute, or every 10 s after a failure of the database. So its beginning is logged
at INFO once in a term, and its first failure at WARNING. The repetitions are logged at DEBUG.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date

from service.database.connection import StoreError
from service.outage import Outage
from service.portfolio.records import JobName, JobRun
from service.prices import PricesUnavailable
from service.work.term import Term

logger = logging.getLogger(__name__)


class Attempt:
    """The result of an attempt at a run, for the log line at its end."""

    def __init__(self) -> None:
        self.rows = 0
        """Rows that the attempt has written."""


class RunLog:
    """The log of the runs of one process.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._token: int | None = None
        self._begun: set[tuple[JobName, date]] = set()
        """The unfinished runs whose beginning was logged in the term of `_token`."""
        self._outages: dict[tuple[JobName, date], Outage] = {}

    @contextmanager
    def attempt(self, run: JobRun, term: Term) -> Iterator[Attempt]:
        """Log an attempt at a run: its beginning, and its end, failure or interruption. The block is the attempt."""
        attempt, began = Attempt(), self._clock()
        fields: dict[str, object] = {
            "lease": term.name,
            "token": term.token,
            "instance": term.holder,
            "job": run.job,
            "session": run.session_date.isoformat(),
            "attempt": run.attempts,
        }
        self._log_beginning(run, term, fields)
        which = f"{run.job} of {run.session_date}"
        try:
            yield attempt
        except (PricesUnavailable, StoreError) as error:
            fields |= {"event": "run_failed", "seconds": round(self._clock() - began, 3)}
            self._outage(run).failed(error, fields)
            raise
        except BaseException as reason:  # the term is over, or the process ends
            fields |= {"event": "run_stopped", "seconds": round(self._clock() - began, 3)}
            text = str(reason) or "the work was stopped"
            logger.info("%s is interrupted, the next term continues it: %s", which, text, extra=fields)
            raise
        self._begun.discard((run.job, run.session_date))
        self._outages.pop((run.job, run.session_date), None)
        fields |= {"event": "run_done", "rows": attempt.rows, "seconds": round(self._clock() - began, 3)}
        logger.info("%s is done, %d rows written", which, attempt.rows, extra=fields)

    def _log_beginning(self, run: JobRun, term: Term, fields: dict[str, object]) -> None:
        if term.token != self._token:
            self._token = term.token
            self._begun.clear()
        first = (run.job, run.session_date) not in self._begun
        self._begun.add((run.job, run.session_date))
        where, fields = "begins", fields | {"event": "run_began"}
        if run.cursor is not None:
            last = run.cursor.portfolio_id
            resumed_at = f"{run.cursor.session_date}{f' after portfolio {last}' if last is not None else ''}"
            where, fields = f"goes on at {resumed_at}", fields | {"resumed_at": resumed_at}
        level = logging.INFO if first else logging.DEBUG
        logger.log(level, "%s of %s %s", run.job, run.session_date, where, extra=fields)

    def _outage(self, run: JobRun) -> Outage:
        name = f"{run.job} of {run.session_date}"
        began = f"{name} failed, the next attempt continues it: %s"
        return self._outages.setdefault((run.job, run.session_date), Outage(logger, began, f"{name} is done"))
