"""Each oracle of the chaos run finds its violations, and reports nothing else."""

from dataclasses import replace
from pathlib import Path

from tests.chaos.database import CLAIM, Accepted
from tests.chaos.observers import Belief, Checked, Observations, Refusal
from tests.chaos.oracles import (
    Deletion,
    forged_writes,
    leaders_refused,
    sidecars_unhealthy,
    stale_writes,
    tokens_shared,
    tracebacks,
    two_believers,
)

BOOT = 1_000_000.0
"""Epoch time of CLOCK_BOOTTIME 0 in these tests."""


def token(at: float) -> int:
    """Return the token of a term that was acquired at this time."""
    return int((BOOT + at) * 1e6)


OLD = Belief("task1", "tracker", token(10.0), "one", began=10.01, until=20.0)
NEW = Belief("task2", "tracker", token(20.1), "two", began=20.11, until=30.0)


def write(place: int, number: int) -> Accepted:
    return Accepted(place, "tracker", number, "portfolio_live", BOOT + place)


def test_successive_beliefs_are_no_violation() -> None:
    assert two_believers([NEW, OLD], [], BOOT) == []


def test_two_beliefs_at_the_same_time_are_a_violation() -> None:
    (violation,) = two_believers([OLD, replace(NEW, began=19.5)], [], BOOT)
    assert violation.law == "two believers"
    assert "0.500 s" in violation.text
    assert violation.at == 19.5


def test_a_long_belief_overlaps_every_belief_that_begins_before_its_end() -> None:
    short = Belief("task2", "tracker", token(11.0), "two", began=11.0, until=12.0)
    late = Belief("task3", "tracker", token(13.0), "three", began=13.0, until=14.0)
    assert len(two_believers([OLD, short, late], [], BOOT)) == 2


def test_a_belief_ends_before_its_deadline_if_the_client_gives_it_up() -> None:
    assert two_believers([replace(OLD, ended=19.0), replace(NEW, began=19.5)], [], BOOT) == []


def test_beliefs_in_different_leases_may_overlap() -> None:
    assert two_believers([OLD, replace(NEW, began=15.0, lease="scheduler")], [], BOOT) == []


def test_only_a_deletion_of_the_key_during_the_older_term_excuses_an_overlap() -> None:
    beliefs = [OLD, replace(NEW, began=19.5, token=token(19.4))]
    assert two_believers(beliefs, [Deletion("tracker", 19.3, 19.35)], BOOT) == []
    before, after = Deletion("tracker", 5.0, 9.9), Deletion("tracker", 19.6, 19.7)
    elsewhere = Deletion("scheduler", 19.3, 19.35)
    assert len(two_believers(beliefs, [before, after, elsewhere], BOOT)) == 1


def test_a_write_of_an_older_term_after_a_write_of_a_newer_term_is_a_violation() -> None:
    assert stale_writes([write(1, 5), write(2, 7), write(3, 7)], BOOT) == []
    (violation,) = stale_writes([write(1, 5), write(2, 7), write(3, 5), write(4, 7)], BOOT)
    assert violation.law == "stale write"


def test_a_write_of_an_older_term_after_a_newer_term_claimed_the_fence_is_a_violation() -> None:
    claimed = replace(write(2, 7), via=CLAIM)
    assert stale_writes([write(1, 5), claimed], BOOT) == []
    assert len(stale_writes([claimed, write(3, 5)], BOOT)) == 1


def test_a_write_with_a_token_that_no_client_was_granted_is_a_violation() -> None:
    assert forged_writes([write(1, OLD.token)], [OLD]) == []
    assert len(forged_writes([write(1, OLD.token + 1)], [OLD])) == 1


def test_a_refused_write_is_a_violation_unless_a_newer_term_has_begun() -> None:
    refusal = Refusal("task1", "tracker", OLD.token, began=19.9, at=20.2)
    assert leaders_refused([refusal], [OLD, NEW]) == []
    assert len(leaders_refused([replace(refusal, at=20.0)], [OLD, NEW])) == 1
    assert len(leaders_refused([replace(refusal, token=NEW.token)], [OLD, NEW])) == 1


def test_a_token_with_two_holders_is_a_violation() -> None:
    again = replace(OLD, began=15.0)
    assert tokens_shared([OLD, again, NEW]) == []
    assert len(tokens_shared([OLD, replace(NEW, token=OLD.token)])) == 1


def test_an_unhealthy_sidecar_is_a_violation_unless_it_is_frozen() -> None:
    reports = [(20.0, "task1/sidecar", "is UNHEALTHY"), (20.0, "task1/api", "is UNHEALTHY")]
    assert sidecars_unhealthy(reports, [("task1", 10.0, 19.0)], 5.0) == []
    assert len(sidecars_unhealthy(reports, [("task2", 10.0, 19.0), ("task1", 1.0, 2.0)], 5.0)) == 1


def test_only_the_complete_lines_of_a_growing_diary_are_read(tmp_path: Path) -> None:
    seen = Observations(tmp_path)
    with seen.diary("task1").open("w", buffering=1) as diary:
        diary.write('{"what": "believes", "grant": "1", "lease": "tracker", "token": 7, "holder": "one", ')
        diary.flush()
        assert seen.read() == []
        diary.write('"at": 1.0, "until": 2.0}\n')
        (belief,) = seen.read()
        assert (belief.task, belief.token, belief.end) == ("task1", 7, 2.0)
        diary.write('{"what": "extended", "grant": "1", "at": 1.5, "until": 2.5}\n')
        assert seen.read() == []
        assert belief.end == 2.5
        assert seen.leader("tracker", 2.4) is belief
        diary.write('{"what": "ended", "grant": "1", "at": 1.9}\n')
        seen.read()
        assert belief.end == 1.9
        assert seen.leader("tracker", 2.4) is None


def test_a_writer_is_between_check_and_write_from_its_checked_record_to_its_writes_record(tmp_path: Path) -> None:
    seen = Observations(tmp_path)
    with seen.diary("task1").open("a") as diary:
        diary.write('{"what": "checked", "lease": "tracker", "token": 7, "pid": 12}\n')
        diary.flush()
        seen.read()
        assert seen.checked["task1", "tracker"] == Checked("task1", "tracker", 7, 12)
        diary.write('{"what": "writes", "lease": "tracker", "token": 7, "pid": 12}\n')
        diary.flush()
        seen.read()
        assert not seen.checked


def test_a_traceback_in_a_log_is_a_violation_with_its_last_line() -> None:
    log = [
        "first line",
        "Traceback (most recent call last):",
        '  File "x.py", line 1, in run',
        "TypeError: no",
        "last line",
    ]
    [violation] = tracebacks({"task1-api": log + log, "task2-api": ["ready"]})
    assert violation.text == "task1-api: TypeError: no (2 times)"
