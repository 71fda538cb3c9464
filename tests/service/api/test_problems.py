"""Problems in words: leases, the sidecar, the database, ticks and jobs."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from service.api.internal_responses import Job, JobRun, Lease
from service.api.problems import (
    database_problems,
    in_words,
    job_problems,
    lease_problems,
    sidecar_problems,
    tick_problems,
)
from service.market.calendar import NyseCalendar
from service.work.timetable import due_runs

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


@pytest.mark.parametrize(
    ("silent", "interval", "wrong"),
    [(None, 30, False), (90, 30, False), (91, 30, True), (14, 2, False), (16, 2, True)],
)
def test_three_missed_ticks_are_a_problem(silent: int | None, interval: int, wrong: bool) -> None:
    silence = timedelta(seconds=silent or 0)
    found = list(tick_problems(None if silent is None else NOW - silence, timedelta(seconds=interval), NOW))
    words = f"The market is open, but this task has received no new values for {in_words(silence)}."
    assert [problem.text for problem in found] == ([words] if wrong else [])


def job(**changes: Any) -> Job:
    true: dict[str, Any] = {
        "session_date": date(2026, 3, 3),
        "status": "done",
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
    return Job(last_run=JobRun(**(true | changes)), next_run=NOW)


NO_RUN = Job(last_run=None, next_run=NOW)


def wrong(run: Job, now: datetime = NOW) -> str:
    """The text of the problem of the job `eod`, or '' if it has no problem."""
    last_due = {due.job: due for due in due_runs(NyseCalendar(), now, 2)}["eod"]
    return "".join(problem.text for problem in job_problems("eod", run, last_due, now))


def test_a_finished_run_is_not_a_problem() -> None:
    assert not wrong(job())


def test_a_run_with_progress_is_not_a_problem() -> None:
    assert not wrong(job(status="running"))


def test_a_run_without_progress_is_a_problem() -> None:
    text = wrong(job(status="running", updated_at=NOW - timedelta(minutes=16)))
    assert text == "The job eod of 2026-03-03 has made no progress for 16 min."


def test_a_run_that_fails_is_a_problem_at_once() -> None:
    text = wrong(job(status="running", error="no prices"))
    assert text == "The job eod of 2026-03-03 fails and is tried again: no prices"


def test_an_old_error_of_a_finished_run_is_not_a_problem() -> None:
    assert not wrong(job(error="no prices"))


@pytest.mark.parametrize("run", [NO_RUN, job(session_date=date(2026, 3, 2))])
def test_a_run_that_has_not_started_is_a_problem_after_a_while(run: Job) -> None:
    close = datetime(2026, 3, 3, 21, 0, tzinfo=UTC)
    assert not wrong(run, close + timedelta(minutes=14))
    text = wrong(run, close + timedelta(minutes=65))
    assert text == "The job eod of 2026-03-03 was due 1 h 5 min ago and has not started."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3900, "1 h 5 min"), (90_000, "1 d 1 h")],
)
def test_a_duration_is_shown_in_its_largest_units(seconds: float, words: str) -> None:
    assert in_words(timedelta(seconds=seconds)) == words
