"""Problems in words: leases, the sidecar, the database, ticks and jobs."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from service.api.internal_responses import Lease
from service.api.problems import (
    clock_problems,
    database_problems,
    in_words,
    job_problems,
    lease_problems,
    price_problems,
    sidecar_problems,
    tick_problems,
)
from service.market.calendar import NyseCalendar
from service.portfolio.records import JobRun
from service.work.backlog import Backlog, WaitingRun
from service.work.timetable import DueRun

NOW = datetime(2026, 3, 4, 15, 0, tzinfo=UTC)
"""A Wednesday, half an hour after the opening."""


def lease(**changes: Any) -> Lease:
    true: dict[str, Any] = {
        "is_leader": False,
        "state": "following",
        "holder": "task-b",
        "token": None,
        "remaining": 0.0,
        "lease_remaining": None,
        "trouble": None,
        "last_writer": None,
    }
    return Lease(**(true | changes))


def texts_of(**leases: Lease) -> list[tuple[str, str]]:
    return [(problem.severity, problem.text) for problem in lease_problems(leases)]


@pytest.mark.parametrize("state", ["following", "leading"])
def test_nothing_is_wrong_with_a_lease_that_has_a_holder(state: str) -> None:
    assert texts_of(one=lease(state=state)) == []


def test_a_lease_in_an_unknown_state_is_not_a_problem_by_itself() -> None:
    assert texts_of(one=lease(state="unknown", holder=None)) == []
    assert texts_of(one=lease(state="unknown", holder=None, trouble="no such lease")) == [
        ("error", "one: no such lease. This task cannot lead.")
    ]


@pytest.mark.parametrize(
    ("state", "severity", "words"),
    [
        ("following", "error", "no task leads"),
        ("disconnected", "error", "cannot use Redis (timeout). This task cannot lead."),
        ("guarded", "warning", "the Redis server has changed"),
        ("waiting", "warning", "does not campaign for the lease"),
        ("draining", "warning", "is stopping"),
        ("disabled", "warning", "disabled"),
        ("invented", "error", "no task leads"),
    ],
)
def test_each_state_without_a_leader_has_its_own_text(state: str, severity: str, words: str) -> None:
    ((found, text),) = texts_of(one=lease(state=state, holder=None, trouble="timeout"))
    assert (found, text[:5]) == (severity, "one: ")
    assert words in text
    assert "(timeout)" in text


def test_the_trouble_of_a_lease_with_a_leader_is_a_problem() -> None:
    assert texts_of(one=lease(trouble="two sidecars have the same INSTANCE_ID")) == [
        ("warning", "one: two sidecars have the same INSTANCE_ID")
    ]


def test_leases_with_the_same_problem_share_one_text() -> None:
    down = lease(state="disconnected", holder=None, trouble="timeout")
    ((_, text),) = texts_of(one=down, two=down)
    assert text.startswith("one and two: the sidecar")


def test_problems_of_sidecar_and_database_have_their_reasons() -> None:
    assert list(sidecar_problems(None)) == list(database_problems(None)) == []
    (sidecar,) = sidecar_problems("no answer in time")
    (database,) = database_problems("cannot connect")
    assert "(no answer in time)" in sidecar.text
    assert "(cannot connect)" in database.text


@pytest.mark.parametrize(("seconds", "words"), [(420, "7 min ahead of"), (-3, "3 s behind")])
def test_a_clock_that_differs_from_the_databases_is_a_warning(seconds: int, words: str) -> None:
    assert list(clock_problems(None)) == []
    (clock,) = clock_problems(timedelta(seconds=seconds))
    assert clock.severity == "warning"
    assert clock.text.startswith(f"The clock of this task is {words} the database's. ")


@pytest.mark.parametrize(
    ("silent", "interval", "wrong"),
    [(None, 30, False), (90, 30, False), (91, 30, True), (14, 2, False), (16, 2, True)],
)
def test_three_missed_ticks_are_a_problem(silent: int | None, interval: int, wrong: bool) -> None:
    silence = timedelta(seconds=silent or 0)
    found = list(tick_problems(None if silent is None else NOW - silence, timedelta(seconds=interval), NOW))
    words = f"The market is open, but this task has received no new values for {in_words(silence)}."
    assert [problem.text for problem in found] == ([words] if wrong else [])


def test_the_problems_of_the_prices_have_the_reason_and_the_numbers() -> None:
    assert list(price_problems(None, None)) == []
    assert [problem.text for problem in price_problems("Alpaca: HTTP 403\n", (2, 7))] == [
        r"The price source failed at least 4 times in the last ten minutes (Alpaca: HTTP 403\n).",
        "Held symbols that have never had a price: 2 of 7. The values leave them out.",
    ]


SESSION = date(2026, 3, 3)
DUE = datetime(2026, 3, 3, 21, 0, tzinfo=UTC)


def job(**changes: Any) -> JobRun:
    true: dict[str, Any] = {
        "job": "eod",
        "session_date": SESSION,
        "status": "running",
        "cursor": None,
        "skipped": [],
        "rows_written": 1,
        "rows_added": 1,
        "rows_changed": 0,
        "attempts": 1,
        "error": None,
        "holder": "task-b",
        "token": 1,
        "started_at": NOW,
        "updated_at": NOW,
        "finished_at": None,
    }
    return JobRun(**(true | changes))


def waiting(record: JobRun | None) -> WaitingRun:
    session = NyseCalendar().session(SESSION)
    assert session is not None
    return WaitingRun(DueRun(DUE, "eod", session), record)


def wrong(record: JobRun | None, now: datetime = NOW) -> str:
    """The text of the problem of a waiting run with that record, or '' if it has no problem."""
    return "".join(problem.text for problem in job_problems(Backlog([waiting(record)], []), now))


def test_a_run_with_progress_is_not_a_problem() -> None:
    assert not wrong(job())


def test_a_run_without_progress_is_a_problem() -> None:
    text = wrong(job(updated_at=NOW - timedelta(minutes=16)))
    assert text == "The job eod of 2026-03-03 has made no progress for 16 min."


def test_a_run_that_fails_is_a_problem_at_once() -> None:
    assert wrong(job(error="no prices")) == "The job eod of 2026-03-03 fails and is tried again: no prices"


@pytest.mark.parametrize(
    "record",
    [
        None,
        job(updated_at=DUE - timedelta(hours=1)),
        job(status="done", updated_at=DUE, finished_at=DUE - timedelta(hours=1)),
    ],
    ids=["no attempt", "interrupted run by hand", "done by hand"],
)
def test_a_run_that_has_not_started_since_it_was_due_is_a_problem_after_a_while(record: JobRun | None) -> None:
    assert not wrong(record, DUE + timedelta(minutes=14))
    text = wrong(record, DUE + timedelta(minutes=65))
    assert text == "The job eod of 2026-03-03 was due 1 h 5 min ago and has not started."


def test_the_number_of_failing_runs_in_the_problems_is_limited() -> None:
    runs = [*[waiting(job(updated_at=DUE))] * 5, *[waiting(job(error="no prices"))] * 16]
    texts = [problem.text for problem in job_problems(Backlog(runs, []), NOW)]
    assert [text for text in texts if text.endswith("fails and is tried again: no prices")] == texts[:10]
    assert texts[10:] == ["11 other runs of the daily jobs also fail or stand still."]


def test_the_runs_of_a_job_that_have_not_started_share_one_problem() -> None:
    (problem,) = job_problems(Backlog([waiting(None)] * 3, []), DUE + timedelta(minutes=65))
    assert problem.text == (
        "The job eod of 2026-03-03 was due 1 h 5 min ago and has not started. "
        "Later runs of this job that have not started: 2."
    )


def test_unsettled_sessions_share_one_problem_of_limited_length() -> None:
    def text(days: list[date]) -> str:
        (problem,) = job_problems(Backlog([], days), NOW)
        return problem.text

    assert text([SESSION, date(2026, 3, 4)]) == (
        "Sessions are unsettled and too old to catch up: 2026-03-03, 2026-03-04. Run the snapshot by hand for each."
    )
    assert ", 2026-03-12 and 2 later ones. " in text([SESSION + timedelta(days=n) for n in range(12)])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3900, "1 h 5 min"), (90_000, "1 d 1 h")],
)
def test_a_duration_is_shown_in_its_largest_units(seconds: float, words: str) -> None:
    assert in_words(timedelta(seconds=seconds)) == words
