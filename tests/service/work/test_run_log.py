"""The log of the runs: the start of a run is logged once per term, and a lasting failure is one line."""

import logging
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest

from service.database.connection import StaleTerm, StoreError
from service.portfolio.records import Cursor, JobName, JobRun
from service.work.run_log import RunLog
from tests.support.work_fakes import FakeTerm

MONDAY = date(2026, 3, 2)
NOW = datetime(2026, 3, 2, 21, 0, tzinfo=UTC)


def run(job: JobName = "eod", cursor: Cursor | None = None, attempts: int = 1) -> JobRun:
    return JobRun(job, MONDAY, "running", cursor, [], 0, 0, 0, attempts, None, "one", 1, NOW, NOW, None)


class Logged:
    """A run log on a clock that the test sets, and its lines at INFO and above."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "service.work.run_log")
        self.now = 0.0
        self.log = RunLog(lambda: self.now)
        self._caplog = caplog

    def attempt(self, run: JobRun, term: FakeTerm, error: BaseException | None = None, rows: int = 0) -> None:
        with suppress(StoreError, StaleTerm, KeyboardInterrupt), self.log.attempt(run, term) as attempt:
            self.now += 2.5
            attempt.rows = rows
            if error is not None:
                raise error

    def lines(self) -> list[dict[str, Any]]:
        found = [vars(record) for record in self._caplog.records]
        self._caplog.clear()
        return found

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines()]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Logged:
    return Logged(caplog)


def test_the_log_of_a_run_has_its_holder_duration_and_rows(logged: Logged) -> None:
    logged.attempt(run(), FakeTerm(7, "two", "daily_scheduler"), rows=5)
    began, done = logged.lines()
    for line in (began, done):
        assert (line["lease"], line["token"], line["instance"]) == ("daily_scheduler", 7, "two")
        assert (line["job"], line["session"], line["attempt"]) == ("eod", "2026-03-02", 1)
    assert (began["event"], done["event"], done["rows"], done["seconds"]) == ("run_began", "run_done", 5, 2.5)
    assert "resumed_at" not in began


def test_the_log_of_a_continued_run_says_where_it_continues(logged: Logged) -> None:
    logged.attempt(run(cursor=Cursor(MONDAY, UUID(int=3)), attempts=2), FakeTerm())
    logged.attempt(run("snapshot", Cursor(MONDAY, None), 2), FakeTerm())
    portfolio, none = (line["resumed_at"] for line in logged.lines() if line["event"] == "run_began")
    assert portfolio == f"2026-03-02 after portfolio {UUID(int=3)}"
    assert none == "2026-03-02"


def test_a_lasting_failure_is_one_line_per_term(logged: Logged) -> None:
    for attempt in (1, 2, 3):
        logged.attempt(run(attempts=attempt), FakeTerm(1), StoreError("away"))
    began, failed = logged.lines()
    assert (began["event"], failed["event"], failed["seconds"]) == ("run_began", "run_failed", 2.5)
    assert "away" in failed["message"]
    logged.attempt(run(attempts=4), FakeTerm(1), rows=2)
    assert logged.events() == ["run_done"]
    logged.attempt(run(attempts=5), FakeTerm(1), StoreError("away"))
    assert logged.events() == ["run_began", "run_failed"], "a new failure is logged again"


def test_a_new_term_logs_the_start_of_the_run_again(logged: Logged) -> None:
    logged.attempt(run(), FakeTerm(1), StoreError("away"))
    logged.attempt(run(attempts=2), FakeTerm(2), rows=1)
    assert logged.events() == ["run_began", "run_failed", "run_began", "run_done"]


@pytest.mark.parametrize("reason", [StaleTerm("a newer term"), KeyboardInterrupt()])
def test_a_run_interrupted_by_the_end_of_the_term_is_logged(logged: Logged, reason: BaseException) -> None:
    logged.attempt(run(), FakeTerm(), reason)
    _, stopped = logged.lines()
    assert (stopped["event"], stopped["seconds"], stopped["levelname"]) == ("run_stopped", 2.5, "INFO")
    assert (str(reason) or "the work was stopped") in stopped["message"]
