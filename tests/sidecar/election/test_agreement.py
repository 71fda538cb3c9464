"""How a task notices that another task has another LEASE_TTL."""

import pytest

from sidecar.election.agreement import LeaseTtl
from sidecar.protocol import Outcome, Reply, Timings

HELD = Reply(Outcome.HELD, "b", 1, ttl=45.0)


@pytest.fixture
def ttl() -> LeaseTtl:
    return LeaseTtl(Timings())


def test_a_holder_with_a_longer_ttl_is_reported_while_it_holds_the_lease(ttl: LeaseTtl) -> None:
    report = ttl.observe(HELD)
    assert report is not None
    assert report.startswith("the key of b lives for longer than this task's LEASE_TTL (30 s)")
    assert ttl.observe(HELD._replace(ttl=12.0)) == report, "later in the life of the key"
    assert ttl.observe(Reply(Outcome.LATE)) == report, "a late reply contains no holder"
    assert ttl.observe(Reply(Outcome.VACANT)) is None
    assert ttl.observe(HELD._replace(ttl=12.0)) is None, "another term may have another ttl"


@pytest.mark.parametrize(
    "reply",
    [
        HELD._replace(ttl=30.0),
        HELD._replace(ttl=32.0),
        HELD._replace(ttl=None),
        Reply(Outcome.DISABLED, "DISABLED", 1, ttl=3600.0),
        Reply(Outcome.RENEWED, "a", 1, ttl=30.0),
    ],
    ids=["the same ttl", "a clock that has stepped back", "no ttl", "disabled", "our own term"],
)
def test_no_other_reply_reports_a_longer_ttl(ttl: LeaseTtl, reply: Reply) -> None:
    assert ttl.observe(reply) is None


def test_another_holder_with_the_same_ttl_ends_the_report(ttl: LeaseTtl) -> None:
    assert ttl.observe(HELD)
    assert ttl.observe(HELD._replace(holder="c", ttl=30.0)) is None
