"""The rules of one lease, each with its shortest example. `test_lease_laws.py` searches for further cases."""

import pytest

from sidecar.election.lease import Lease
from sidecar.protocol import ECHO_DELAY, Kind, Outcome, Reply, State
from tests.support.lease_model import RedisModel
from tests.support.one_lease import BELIEVED, T, answer, due, fresh_lease, leading


def test_a_term_starts_before_its_call_is_sent() -> None:
    lease = fresh_lease()
    lease.asked(100)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 101.5, Outcome.ACQUIRED)
    assert lease.leads(100 + BELIEVED - 0.001)
    assert not lease.leads(100 + BELIEVED)


def test_each_attempt_starts_its_own_term() -> None:
    lease = leading(100)
    lost = due(lease, 110, Kind.RENEW)
    lease.failed(lost, 112, may_execute=True)
    assert lease.wake_at(112) == pytest.approx(112 + T.retry)
    retry_at = lease.wake_at(112)
    retry = due(lease, retry_at, Kind.RENEW)
    answer(lease, retry, retry_at + 1, Outcome.RENEWED)
    assert lease.remaining(retry_at) == pytest.approx(BELIEVED)


def test_failures_never_prolong_a_term_and_are_retried_until_its_end() -> None:
    lease = leading(100)
    now, calls = 110.0, 0
    while lease.leads(now):
        if call := lease.next_call(now):
            calls += 1
            assert call.give_up_at <= 100 + BELIEVED
            lease.failed(call, now, may_execute=True)
        now = lease.wake_at(now)
    assert now == pytest.approx(100 + BELIEVED)
    assert calls >= 10


def test_a_renewal_answered_after_the_deadline_does_not_revive_the_term() -> None:
    lease = leading(100)
    call = due(lease, 110, Kind.RENEW)
    end = 100 + BELIEVED
    assert not lease.leads(end)
    answer(lease, call, end, Outcome.RENEWED)
    assert not lease.leads(end)
    assert [transition.reason for transition in lease.transitions()] == ["acquired", "deadline"]


def test_an_acquire_answered_after_its_own_deadline_begins_no_term() -> None:
    lease = fresh_lease()
    lease.asked(100)
    call = due(lease, 100, Kind.ACQUIRE)
    lease.asked(130)
    answer(lease, call, 130, Outcome.ACQUIRED)
    assert not lease.leads(130)
    assert lease.transitions() == []


def test_a_reply_for_an_ended_term_changes_nothing() -> None:
    lease = leading(100)
    call = due(lease, 110, Kind.RENEW)
    lease.resigned(110.1)
    answer(lease, call, 110.2, Outcome.RENEWED)
    assert not lease.leads(110.2)
    due(lease, 110.2, Kind.RELEASE)


def test_the_grant_of_a_held_request_starts_when_the_request_arrives() -> None:
    lease = leading(100)
    assert lease.grant(101, 103) == pytest.approx(T.grant_ttl)
    assert lease.grant(101, 101 + T.grant_ttl) is None, "a grant that has already expired is not given"


def test_a_grant_to_a_request_older_than_the_term_starts_with_the_term() -> None:
    lease = leading(100)
    assert lease.grant(90, 100) == pytest.approx(10 + T.grant_ttl)


def test_a_grant_never_ends_after_the_term() -> None:
    lease = leading(100)
    late = 100 + BELIEVED - 1
    assert lease.grant(late, late) == pytest.approx(1)


def test_a_notice_while_a_call_is_in_flight_is_not_lost() -> None:
    lease = leading(100)
    call = due(lease, 110, Kind.RENEW)
    lease.noticed(110.01)
    answer(lease, call, 110.02, Outcome.RENEWED)
    assert lease.wake_at(110.02) == pytest.approx(110.02 + ECHO_DELAY)
    due(lease, 110.02 + ECHO_DELAY, Kind.RENEW)


def test_a_follower_looks_again_after_a_notice_during_a_look() -> None:
    lease = fresh_lease()
    lease.asked(100)
    call = due(lease, 100, Kind.ACQUIRE)
    lease.noticed(100.01)
    answer(lease, call, 100.02, Outcome.HELD, holder="b")
    due(lease, 100.02, Kind.ACQUIRE)


def test_a_follower_wakes_at_the_holders_expiry_jittered_by_milliseconds() -> None:
    lease = fresh_lease()
    lease.asked(100)
    lease.replied(due(lease, 100, Kind.ACQUIRE), Reply(Outcome.HELD, "b", 1, ttl=4.0), 100)
    assert 104 < lease.wake_at(100) < 104.005


def test_a_follower_looks_once_a_heartbeat_at_a_key_that_expires_later_or_never() -> None:
    for ttl in (3600.0, None):
        lease = fresh_lease()
        lease.asked(100)
        lease.hold()
        lease.replied(due(lease, 100, Kind.ACQUIRE), Reply(Outcome.DISABLED, "DISABLED", 1, ttl), 100)
        assert lease.view(100).state is State.DISABLED
        assert T.heartbeat * 0.9 <= lease.wake_at(110 - T.heartbeat) - 100 <= T.heartbeat


def test_a_guarded_candidate_calls_again_at_the_end_of_the_failover_guard() -> None:
    lease = fresh_lease()
    lease.asked(100)
    lease.replied(due(lease, 100, Kind.ACQUIRE), Reply(Outcome.GUARDED, None, 1, None, wait=7.0), 100)
    assert lease.view(100).state is State.GUARDED
    assert 107 < lease.wake_at(100) < 107.005


def test_an_acquire_after_a_lost_reply_leads_under_the_same_term() -> None:
    redis, lease = RedisModel(T.ttl, T.heartbeat), fresh_lease()
    lease.asked(100)
    lost = due(lease, 100, Kind.ACQUIRE)
    redis.execute(lost, "a", 100.1)
    lease.failed(lost, 102, may_execute=True)
    again = lease.wake_at(102)
    call = due(lease, again, Kind.ACQUIRE)
    lease.replied(call, redis.execute(call, "a", again), again)
    assert (lease.view(again).token, redis.token) == (1, 1)


def test_an_acquire_with_a_lost_reply_is_checked_when_demand_has_ended() -> None:
    redis, lease = RedisModel(T.ttl, T.heartbeat), fresh_lease()
    lease.asked(100)
    lost = due(lease, 100, Kind.ACQUIRE)
    lease.failed(lost, 101, may_execute=True)
    lease.resigned(101)
    redis.execute(lost, "a", 101.9)
    look = due(lease, lease.wake_at(101), Kind.LOOK)
    assert look.sent_at >= lost.give_up_at
    lease.replied(look, redis.execute(look, "a", look.sent_at), look.sent_at)
    release = due(lease, look.sent_at, Kind.RELEASE)
    assert redis.execute(release, "a", look.sent_at).outcome is Outcome.RELEASED


def test_a_late_release_does_not_change_a_later_term() -> None:
    redis, lease = RedisModel(T.ttl, T.heartbeat), fresh_lease()
    lease.asked(100)
    acquire = due(lease, 100, Kind.ACQUIRE)
    lease.replied(acquire, redis.execute(acquire, "a", 100), 100)
    lease.resigned(101)
    lost = due(lease, 101, Kind.RELEASE)
    lease.failed(lost, 101.1, may_execute=True)
    again = due(lease, lease.wake_at(101.1), Kind.RELEASE)
    lease.replied(again, redis.execute(again, "a", 102), 102)
    lease.asked(102.5)
    acquire = due(lease, 102.5, Kind.ACQUIRE)
    lease.replied(acquire, redis.execute(acquire, "a", 102.5), 102.5)
    assert lease.leads(102.6)
    assert redis.execute(lost, "a", 102.7).outcome is Outcome.SUPERSEDED


def test_a_late_acquire_restores_no_earlier_tenure_and_leaves_no_key() -> None:
    redis, lease = RedisModel(T.ttl, T.heartbeat), fresh_lease()
    lease.asked(100)
    late = due(lease, 100, Kind.ACQUIRE)
    lease.failed(late, 100.1, may_execute=True)
    acquire = due(lease, lease.wake_at(100.1), Kind.ACQUIRE)
    lease.replied(acquire, redis.execute(acquire, "a", 101.5), 101.5)
    assert redis.execute(late, "a", 101.6).outcome is Outcome.ADOPTED
    assert redis.tenure == late.tenure != acquire.tenure
    lease.resigned(101.7)
    release = due(lease, 101.7, Kind.RELEASE)
    lease.replied(release, redis.execute(release, "a", 101.7), 101.7)
    release = due(lease, 101.7, Kind.RELEASE)
    assert redis.execute(release, "a", 101.7).outcome is Outcome.RELEASED


def test_a_restarted_sidecar_adopts_its_term_and_a_late_release_of_the_previous_process_does_not_end_it() -> None:
    redis, predecessor = RedisModel(T.ttl, T.heartbeat), fresh_lease()
    predecessor.asked(199)
    acquire = due(predecessor, 199, Kind.ACQUIRE)
    predecessor.replied(acquire, redis.execute(acquire, "a", 199), 199)
    predecessor.resigned(199)
    late = predecessor.next_call(199.5)
    assert late is not None
    lease = Lease("a", T, boot="another", now=200, uniform=lambda low, high: (low + high) / 2)
    lease.asked(200)
    acquire = due(lease, 200, Kind.ACQUIRE)
    lease.replied(acquire, redis.execute(acquire, "a", 200), 200.1)
    assert lease.leads(200.1)
    assert redis.execute(late, "a", 200.2).outcome is Outcome.SUPERSEDED


def test_a_restarted_sidecar_keeps_the_key_until_grants_of_the_previous_process_end() -> None:
    lease = fresh_lease(now=200)
    lease.asked(200)
    answer(lease, due(lease, 200, Kind.ACQUIRE), 200, Outcome.ADOPTED)
    lease.drain(200.1)
    assert lease.next_call(204.9) is None
    assert lease.wake_at(204.9) == 200 + T.grant_ttl
    due(lease, 200 + T.grant_ttl, Kind.RELEASE)


def test_a_late_call_is_retried_at_once_and_then_with_pauses() -> None:
    lease = leading(100)
    answer(lease, due(lease, 110, Kind.RENEW), 110.1, Outcome.LATE, holder=None)
    assert lease.leads(110.1)
    answer(lease, due(lease, 110.1, Kind.RENEW), 110.2, Outcome.LATE, holder=None)
    assert lease.next_call(110.2) is None
    assert lease.wake_at(110.2) == pytest.approx(110.2 + T.retry)


def test_a_term_that_too_few_replicas_confirm_does_not_lead_and_is_released_when_demand_ends() -> None:
    lease = fresh_lease()
    lease.asked(100)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 101, Outcome.UNCONFIRMED)
    assert not lease.leads(101)
    lease.resigned(101)
    answer(lease, due(lease, lease.wake_at(101), Kind.LOOK), 102.1, Outcome.SUPERSEDED)
    due(lease, lease.wake_at(102.1), Kind.RELEASE)


@pytest.mark.parametrize(
    ("outcome", "holder"),
    [
        (Outcome.HELD, "b"),
        (Outcome.DISABLED, "DISABLED"),
        (Outcome.VACANT, None),
        (Outcome.SUPERSEDED, "a"),
        (Outcome.WRONG_TYPE, None),
        (Outcome.BAD_FENCE, None),
    ],
)
def test_a_renewal_that_finds_another_term_ends_its_own_term(outcome: Outcome, holder: str | None) -> None:
    lease = leading(100)
    before = lease.view(110).version
    answer(lease, due(lease, 110, Kind.RENEW), 110, outcome, holder=holder)
    assert not lease.leads(110)
    assert lease.grant(110, 110) is None
    assert lease.view(110).version != before
    assert lease.transitions()[-1].reason == outcome


def test_a_leader_whose_fence_is_lost_acquires_at_once() -> None:
    """Somebody deleted the fence, or the server evicted it: the key names this sidecar, but belongs to no term."""
    lease = leading(100)
    lost = Reply(Outcome.SUPERSEDED, "a", ttl=20.0, tenure="-")
    lease.replied(due(lease, 110, Kind.RENEW), lost, 110.1)
    assert not lease.leads(110.1)
    due(lease, 110.1, Kind.ACQUIRE)


def test_a_leader_whose_term_another_process_took_waits_before_it_acquires() -> None:
    """Two sidecars with one id would otherwise take the term from each other without a pause."""
    lease = leading(100)
    taken = Reply(Outcome.SUPERSEDED, "a", 2, ttl=30.0, tenure="another-1")
    lease.replied(due(lease, 110, Kind.RENEW), taken, 110.1)
    assert lease.wake_at(110.1) >= 110.1 + 0.9 * T.heartbeat


def test_versions_differ_after_every_change_and_after_every_resign() -> None:
    lease = fresh_lease()
    versions = [lease.view(99).version]
    lease.asked(100)
    versions.append(lease.view(100).version)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.HELD, holder="b")
    versions.append(lease.view(100).version)
    lease.noticed(101)
    answer(lease, due(lease, 101, Kind.ACQUIRE), 101, Outcome.HELD, holder="c")
    versions.append(lease.view(101).version)
    lease.noticed(102)
    lease.failed(due(lease, 102, Kind.ACQUIRE), 102, may_execute=False)
    versions.append(lease.view(102).version)
    lease.resigned(103)
    versions.append(lease.view(103).version)
    lease.resigned(104)
    versions.append(lease.view(104).version)
    assert len(set(versions)) == len(versions)
    assert lease.view(104).version == versions[-1]


def test_before_the_first_reply_of_redis_the_state_is_disconnected_and_not_following() -> None:
    lease = fresh_lease()
    lease.asked(100)
    lease.hold()
    assert (lease.view(100).state, lease.heard_from_redis()) == (State.DISCONNECTED, False)
    call = due(lease, 100, Kind.ACQUIRE)
    before = lease.view(100)
    assert (before.state, lease.heard_from_redis()) == (State.DISCONNECTED, False)
    lease.failed(call, 102, may_execute=True)
    assert (lease.view(102).state, lease.heard_from_redis()) == (State.DISCONNECTED, True)
    assert lease.view(102).version > before.version, "the request that waits for the first reply is answered"
    answer(lease, due(lease, 104, Kind.ACQUIRE), 104, Outcome.HELD, holder="b")
    assert (lease.view(104).state, lease.heard_from_redis()) == (State.FOLLOWING, True)
    lease.failed(due(lease, 114, Kind.ACQUIRE), 116, may_execute=True)
    assert (lease.view(116).state, lease.heard_from_redis()) == (State.DISCONNECTED, True)
