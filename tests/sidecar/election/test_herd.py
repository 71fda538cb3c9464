"""The calls of many candidates after an event that all candidates notice at the same time."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from sidecar.election.herd import AT_ONCE, HEAD_START, SMALL_FLEET, SPREAD, delay
from sidecar.protocol import Kind, Outcome, Reply
from tests.support.one_lease import T, due, fresh_lease

FLEET = 1_000


@given(st.none() | st.integers(0, SMALL_FLEET), st.integers())
def test_a_small_fleet_or_an_unknown_number_of_candidates_has_no_delay(candidates: int | None, seed: int) -> None:
    assert delay(candidates, Random(seed).uniform) == 0


@given(st.integers(SMALL_FLEET + 1, 10**6), st.integers())
def test_no_candidate_waits_longer_than_the_spread(candidates: int, seed: int) -> None:
    waits = delay(candidates, Random(seed).uniform)
    assert waits == 0 or HEAD_START <= waits <= SPREAD


def test_in_a_large_fleet_a_few_candidates_call_at_once_and_the_others_are_spread() -> None:
    random = Random(1)
    delays = [delay(FLEET, random.uniform) for _ in range(100 * FLEET)]
    at_once = delays.count(0) / 100
    assert 0.9 * AT_ONCE < at_once < 1.1 * AT_ONCE
    for tenth in range(1, 10):
        within = sum(HEAD_START < waits <= HEAD_START + (SPREAD - HEAD_START) * tenth / 10 for waits in delays)
        assert abs(within / len(delays) - tenth / 10) < 0.02


def test_a_follower_in_a_large_fleet_looks_within_the_spread_after_a_notice() -> None:
    lease = fresh_lease()
    lease.asked(100)
    lease.replied(due(lease, 100, Kind.ACQUIRE), Reply(Outcome.HELD, "b", 1, ttl=T.ttl, watchers=FLEET), 100)
    lease.noticed(101)
    assert lease.next_call(101) is None
    assert 101 + HEAD_START <= lease.wake_at(101) <= 101 + SPREAD
    due(lease, 101 + SPREAD, Kind.ACQUIRE)


def test_a_notice_in_a_large_fleet_does_not_postpone_a_call_that_is_due_earlier() -> None:
    lease = fresh_lease()
    lease.asked(100)
    lease.replied(due(lease, 100, Kind.ACQUIRE), Reply(Outcome.HELD, "b", 1, ttl=1.0, watchers=FLEET), 100)
    expires = lease.wake_at(100)
    lease.noticed(expires - 0.001)
    due(lease, expires, Kind.ACQUIRE)


def test_the_calls_of_a_large_fleet_at_an_expiry_and_at_the_end_of_the_guard_are_spread() -> None:
    for reply in (
        Reply(Outcome.HELD, "b", 1, ttl=4.0, watchers=FLEET),
        Reply(Outcome.GUARDED, None, 1, None, wait=4.0, watchers=FLEET),
    ):
        lease = fresh_lease()
        lease.asked(100)
        lease.replied(due(lease, 100, Kind.ACQUIRE), reply, 100)
        assert 104 + HEAD_START < lease.wake_at(100) < 104.005 + SPREAD


def test_the_number_of_candidates_is_kept_until_a_reply_contains_another() -> None:
    lease = fresh_lease()
    lease.asked(100)
    lease.replied(due(lease, 100, Kind.ACQUIRE), Reply(Outcome.HELD, "b", 1, ttl=1.0, watchers=FLEET), 100)
    again = lease.wake_at(100)
    lease.replied(due(lease, again, Kind.ACQUIRE), Reply(Outcome.WRONG_TYPE), again)
    lease.noticed(again + 0.1)
    assert lease.next_call(again + 0.1) is None
    later = lease.wake_at(again + 0.1)
    lease.replied(due(lease, later, Kind.ACQUIRE), Reply(Outcome.HELD, "b", 1, ttl=30.0, watchers=2), later)
    lease.noticed(later + 0.1)
    due(lease, later + 0.1, Kind.ACQUIRE)
