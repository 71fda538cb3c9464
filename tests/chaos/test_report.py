"""The text of a run's verdict."""

from dataclasses import replace

from tests.chaos.faults import Happening
from tests.chaos.observers import Refusal
from tests.chaos.oracles import Violation
from tests.chaos.redis_faults import SKIPPED
from tests.chaos.report import verdict
from tests.chaos.run import Record
from tests.chaos.schedule import LEASES, Kind

NOTHING = Record(seed=1, tasks=["task1"], ttl=3.0, boot=0.0, began=0.0, ended=10.0)
REFUSAL = Refusal("task1", LEASES[0], 5, began=1.0, at=2.0)


def test_the_verdict_reports_that_no_stale_write_was_attempted() -> None:
    assert "promise 1 was not tested" in verdict(NOTHING)
    assert verdict(replace(NOTHING, refusals=[REFUSAL])).endswith("VERDICT: every promise was kept.")


def test_a_skipped_fault_is_reported_but_not_counted() -> None:
    happenings = [
        Happening(Kind.STEP_CLOCK, "redis", 1.0, note=f"{SKIPPED}there is no C compiler"),
        Happening(Kind.CUT, "task1", 2.0),
    ]
    said = verdict(replace(NOTHING, happenings=happenings)).splitlines()
    assert "Faults      1: 1 cut" in said
    assert "Skipped     1 clock step (there is no C compiler)" in said


def test_the_verdict_names_the_broken_promise() -> None:
    said = verdict(replace(NOTHING, violations=[Violation("stale write", "a write", 3.0)]))
    assert "VERDICT: 1 VIOLATIONS (promise 1 is broken: a stale leader wrote), SEED=1" in said
    assert "  stale write: a write, at 3.00" in said
