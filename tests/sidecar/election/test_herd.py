"""A large fleet: which candidates have a direct watch, and the calls after an event that many candidates notice."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.election.herd import (
    AT_ONCE,
    HEAD_START,
    MAX_DIRECT,
    SMALL_FLEET,
    SPREAD,
    delay,
    watches_directly,
)
from sidecar.election.lease import Lease
from sidecar.protocol import Kind, Outcome, Reply
from tests.support.one_lease import T, answer, due, fresh_lease, leading

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
    lease.replied(
        due(lease, 100, Kind.ACQUIRE), Reply(Outcome.HELD, "b", 1, ttl=T.ttl, watchers=FLEET, direct=FLEET), 100
    )
    lease.noticed(101)
    assert lease.next_call(101) is None
    assert 101 + HEAD_START <= lease.wake_at(101) <= 101 + SPREAD
    due(lease, 101 + SPREAD, Kind.ACQUIRE)


def test_a_notice_in_a_large_fleet_does_not_postpone_a_call_that_is_due_earlier() -> None:
    lease = fresh_lease()
    lease.asked(100)
    lease.replied(
        due(lease, 100, Kind.ACQUIRE), Reply(Outcome.HELD, "b", 1, ttl=1.0, watchers=FLEET, direct=FLEET), 100
    )
    expires = lease.wake_at(100)
    lease.noticed(expires - 0.001)
    due(lease, expires, Kind.ACQUIRE)


def test_the_calls_of_a_large_fleet_at_an_expiry_and_at_the_end_of_the_guard_are_spread() -> None:
    for reply in (
        Reply(Outcome.HELD, "b", 1, ttl=4.0, watchers=FLEET, direct=FLEET),
        Reply(Outcome.GUARDED, None, 1, None, wait=4.0, watchers=FLEET, direct=FLEET),
    ):
        lease = fresh_lease()
        lease.asked(100)
        lease.replied(due(lease, 100, Kind.ACQUIRE), reply, 100)
        assert 104 + HEAD_START < lease.wake_at(100) < 104.005 + SPREAD


def test_the_number_of_candidates_is_kept_until_a_reply_contains_another() -> None:
    lease = fresh_lease()
    lease.asked(100)
    lease.replied(
        due(lease, 100, Kind.ACQUIRE), Reply(Outcome.HELD, "b", 1, ttl=1.0, watchers=FLEET, direct=FLEET), 100
    )
    again = lease.wake_at(100)
    lease.replied(due(lease, again, Kind.ACQUIRE), Reply(Outcome.WRONG_TYPE), again)
    lease.noticed(again + 0.1)
    assert lease.next_call(again + 0.1) is None
    later = lease.wake_at(again + 0.1)
    lease.replied(due(lease, later, Kind.ACQUIRE), Reply(Outcome.HELD, "b", 1, ttl=30.0, watchers=2, direct=2), later)
    lease.noticed(later + 0.1)
    due(lease, later + 0.1, Kind.ACQUIRE)


@given(st.integers(0, SMALL_FLEET - 1), st.booleans(), st.integers())
def test_in_a_small_fleet_every_candidate_that_campaigns_has_a_direct_watch(
    direct: int, now_direct: bool, seed: int
) -> None:
    uniform = Random(seed).uniform
    assert watches_directly(direct, SMALL_FLEET, now_direct=now_direct, campaigns=True, uniform=uniform)


@given(st.integers(1, SMALL_FLEET), st.booleans(), st.integers())
def test_in_a_small_fleet_no_candidate_gives_up_its_direct_watch(direct: int, campaigns: bool, seed: int) -> None:
    uniform = Random(seed).uniform
    assert watches_directly(direct, SMALL_FLEET, now_direct=True, campaigns=campaigns, uniform=uniform)


@given(st.integers(0, FLEET), st.booleans(), st.integers())
def test_in_a_large_fleet_a_candidate_that_does_not_campaign_has_no_direct_watch(
    direct: int, now_direct: bool, seed: int
) -> None:
    uniform = Random(seed).uniform
    assert not watches_directly(direct, FLEET, now_direct=now_direct, campaigns=False, uniform=uniform)


@given(st.integers(SMALL_FLEET, FLEET - 1), st.integers())
def test_a_relayed_watch_stays_relayed_while_enough_others_are_direct(direct: int, seed: int) -> None:
    assert not watches_directly(direct, FLEET, now_direct=False, campaigns=True, uniform=Random(seed).uniform)


@pytest.mark.parametrize("direct", [0, 4, SMALL_FLEET - 1])
def test_if_a_thousand_candidates_decide_at_the_same_moment_about_twice_the_missing_watches_become_direct(
    direct: int,
) -> None:
    random = Random(1)
    join = [
        sum(
            watches_directly(direct, FLEET + direct, now_direct=False, campaigns=True, uniform=random.uniform)
            for _ in range(FLEET)
        )
        for _ in range(300)
    ]
    expected = 2 * (SMALL_FLEET - direct)
    assert 0.8 * expected < sum(join) / len(join) < 1.2 * expected
    assert max(join) < 4 * SMALL_FLEET + direct


@given(st.integers(0, MAX_DIRECT), st.integers())
def test_a_direct_watch_stays_direct_while_there_are_not_too_many(direct: int, seed: int) -> None:
    assert watches_directly(direct, FLEET, now_direct=True, campaigns=True, uniform=Random(seed).uniform)


def test_if_a_thousand_candidates_decide_at_the_same_moment_about_eight_direct_watches_stay() -> None:
    random = Random(1)
    stay = [
        sum(
            watches_directly(FLEET, FLEET, now_direct=True, campaigns=True, uniform=random.uniform)
            for _ in range(FLEET)
        )
        for _ in range(300)
    ]
    assert 0.9 * SMALL_FLEET < sum(stay) / len(stay) < 1.1 * SMALL_FLEET
    assert min(stay) > 0


def test_candidates_that_decide_one_after_the_other_never_leave_too_few_direct_watches() -> None:
    random, direct = Random(1), FLEET
    for _ in range(10 * FLEET):
        leaves = not watches_directly(direct, FLEET, now_direct=True, campaigns=True, uniform=random.uniform)
        direct -= leaves
    assert direct == MAX_DIRECT


def follower(direct: int, watchers: int = FLEET) -> Lease:
    """A candidate that found the lease held by another candidate, and that always draws the highest number."""
    lease = fresh_lease()
    lease._uniform = lambda low, high: high
    lease.asked(100)
    lease.hold()
    held = Reply(Outcome.HELD, "b", 1, ttl=T.ttl, watchers=watchers, direct=direct)
    lease.replied(due(lease, 100, Kind.ACQUIRE), held, 100)
    return lease


def test_a_candidate_with_a_direct_watch_calls_at_once_because_few_candidates_get_its_notices() -> None:
    lease = follower(direct=SMALL_FLEET)
    assert lease.watches_directly
    lease.noticed(101)
    due(lease, 101, Kind.ACQUIRE)


def test_a_candidate_with_a_relayed_watch_calls_within_the_spread_because_the_whole_fleet_gets_its_notices() -> None:
    lease = follower(direct=FLEET)
    assert not lease.watches_directly
    held = Reply(Outcome.HELD, "b", 1, ttl=T.ttl, watchers=FLEET, direct=SMALL_FLEET)
    again = lease.wake_at(100)
    lease.replied(due(lease, again, Kind.ACQUIRE), held, again)
    lease.noticed(again + 1)
    assert lease.wake_at(again + 1) == again + 1 + SPREAD


def test_a_leader_has_a_direct_watch() -> None:
    lease = follower(direct=FLEET)
    assert not lease.watches_directly
    again = lease.wake_at(100)
    answer(lease, due(lease, again, Kind.ACQUIRE), again, Outcome.ACQUIRED)
    assert lease.leads(again)
    assert lease.watches_directly


def test_a_candidate_without_a_client_relays_a_notice_and_its_reply_is_not_an_answer_for_clients() -> None:
    lease = fresh_lease()
    lease.relay_noticed(100)
    relays = lease.wake_at(100)
    assert 100 + HEAD_START <= relays <= 100 + SPREAD
    assert lease.next_call(100) is None
    vacant = Reply(Outcome.VACANT, None, 1, watchers=FLEET, direct=SMALL_FLEET)
    lease.replied(due(lease, relays, Kind.RELAY), vacant, relays)
    assert not lease.heard_from_redis(), "an answer to a client waits for the reply to an acquire"
    assert lease.next_call(relays + T.ttl) is None
    lease.asked(200)
    answer(lease, due(lease, 200, Kind.ACQUIRE), 200, Outcome.ADOPTED)
    assert lease.grant(200, 200, "client") is None, "the term may still belong to the client of an earlier process"


def test_a_candidate_relays_nothing_once_the_lease_is_held_again_or_guarded() -> None:
    for reply in (
        Reply(Outcome.HELD, "b", 1, ttl=T.ttl, watchers=FLEET, direct=SMALL_FLEET),
        Reply(Outcome.GUARDED, None, 1, wait=T.ttl, watchers=FLEET, direct=SMALL_FLEET),
        Reply(Outcome.UNCONFIRMED, "a", 1, ttl=T.ttl),
    ):
        lease = follower(direct=SMALL_FLEET)
        lease.relay_noticed(101)
        lease.replied(due(lease, 101, Kind.ACQUIRE), reply, 101)
        later = lease.next_call(101.5)
        assert later is None or later.kind is not Kind.RELAY


def test_a_candidate_whose_acquire_may_have_executed_relays_nothing() -> None:
    lease = follower(direct=SMALL_FLEET)
    lease.relay_noticed(101)
    lease.failed(due(lease, 101, Kind.ACQUIRE), 101.01, may_execute=True)
    assert lease.next_call(101.01 + 2 * SPREAD) is None


def test_a_failed_relay_is_not_an_answer_for_clients_and_keeps_the_notices() -> None:
    lease = fresh_lease()
    lease.relay_noticed(100)
    relays = lease.wake_at(100)
    call = due(lease, relays, Kind.RELAY)
    lease.asked(relays)
    lease.noticed(relays)
    lease.failed(call, relays + 1, may_execute=False)
    assert not lease.heard_from_redis()
    due(lease, relays + 1, Kind.ACQUIRE)


def test_a_reply_to_a_call_before_the_notice_does_not_end_the_relay() -> None:
    lease = fresh_lease()
    lease.asked(100)
    call = due(lease, 100, Kind.ACQUIRE)
    lease.relay_noticed(100.001)
    held = Reply(Outcome.HELD, "b", 1, ttl=T.ttl, watchers=FLEET, direct=SMALL_FLEET)
    lease.replied(call, held, 100.002)
    vacant = Reply(Outcome.VACANT, None, 1, watchers=FLEET, direct=SMALL_FLEET)
    lease._rest.resigned(100.002)
    lease.replied(due(lease, 100.002, Kind.LOOK), vacant, 100.003)
    due(lease, 100.002 + 2 * SPREAD, Kind.RELAY)


def test_a_candidate_acquires_before_it_relays_even_if_both_are_due() -> None:
    lease = follower(direct=SMALL_FLEET + 1)
    lease.relay_noticed(101)
    due(lease, 101 + 2 * SPREAD, Kind.ACQUIRE)


def test_a_candidate_acquires_before_it_relays_a_notice_that_came_during_a_call() -> None:
    lease = follower(direct=SMALL_FLEET + 1)
    again = lease.wake_at(100)
    call = due(lease, again, Kind.ACQUIRE)
    lease.relay_noticed(again + 0.001)
    replied = again + 1
    held = Reply(Outcome.HELD, "b", 1, ttl=T.ttl, watchers=FLEET, direct=SMALL_FLEET + 1)
    lease.replied(call, held, replied)
    assert lease.next_call(replied) is None
    due(lease, replied + SPREAD, Kind.ACQUIRE)


def test_the_next_leader_relays_nothing() -> None:
    lease = follower(direct=SMALL_FLEET)
    lease.relay_noticed(101)
    answer(lease, due(lease, 101, Kind.ACQUIRE), 101, Outcome.ACQUIRED)
    lease.relay_noticed(102)
    while (call := lease.next_call(now := lease.wake_at(102))) is not None and now < 110:
        assert call.kind is not Kind.RELAY
        answer(lease, call, now, Outcome.RENEWED)


def test_a_candidate_that_drains_relays_nothing_that_outlives_the_drain() -> None:
    lease = leading(100)
    lease.drain(101)
    lease.relay_noticed(101)
    until = 101 + T.grant_ttl + 3 * T.call_limit
    assert lease.next_call(until) is None
    assert lease.drained(until)
