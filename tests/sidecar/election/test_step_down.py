"""An operator's step-down in the rules of a lease.

The leader stops leading at once, releases the lease once its client has stopped, and rests.
"""

import pytest

from sidecar.election.lease import Lease
from sidecar.election.rest import Rest
from sidecar.protocol import YIELD_FOR, Call, Kind, Outcome, Reply, State
from tests.support.one_lease import T, answer, due, fresh_lease, leading

RENEW_AT = 100.0 + T.heartbeat
STEPS = 110.1
"""Time at which the leader receives the step-down."""


def asked(lease: Lease | None = None, *, now: float = STEPS) -> Lease:
    """A leader that has just received the step-down; its client was granted the lease at `now - 1`."""
    lease = lease or leading(100.0)
    lease.grant(now - 1, now - 1)
    lease.step_down_noticed(now - 0.1)
    answer(lease, due(lease, now - 0.1, Kind.RENEW), now, Outcome.STEPPING_DOWN)
    return lease


def released(lease: Lease, now: float, *, token: int = 1) -> Call:
    call = due(lease, now, Kind.RELEASE)
    answer(lease, call, now, Outcome.RELEASED, holder=None, token=token)
    return call


def resting() -> Lease:
    """A former leader that has stepped down, has released the lease at `STEPS`, and has then received a notice."""
    lease = asked()
    assert lease.resigned(STEPS, 1)
    lease.asked(STEPS)
    lease.hold()
    released(lease, STEPS)
    lease.noticed(STEPS)
    return lease


def test_a_step_down_ends_leadership_at_once() -> None:
    lease = asked()
    assert not lease.leads(STEPS)
    assert lease.remaining(STEPS) == 0
    assert lease.grant(STEPS, STEPS) is None
    assert lease.view(STEPS)[:3] == (State.DRAINING, "a", None)


def test_a_step_down_answers_held_requests_at_once() -> None:
    lease = leading(100.0)
    before = lease.view(STEPS - 1).version
    assert asked(lease).view(STEPS).version != before


def test_after_a_step_down_the_key_stays_until_the_client_has_resigned() -> None:
    lease = asked()
    assert lease.next_call(STEPS + 1) is None
    assert lease.resigned(STEPS + 2, 1)
    assert released(lease, STEPS + 2).reason == "step-down"


def test_after_a_step_down_the_key_stays_until_the_last_grant_has_ended() -> None:
    lease = asked()
    until = STEPS - 1 + T.grant_ttl
    assert lease.next_call(until - 0.01) is None
    assert lease.wake_at(STEPS) == until
    assert released(lease, until).reason == "step-down"


def test_a_release_after_a_late_acquire_of_the_same_term_begins_the_rest_again() -> None:
    """A late acquire executes before the first release, which therefore deletes nothing."""
    lease = asked()
    lease.asked(STEPS)
    lease.resigned(STEPS, 1)
    first = due(lease, STEPS, Kind.RELEASE)
    tenure = first.tenure.rpartition("-")[0] + "-0"
    lease.replied(first, Reply(Outcome.SUPERSEDED, "a", first.token, ttl=30.0, tenure=tenure), STEPS + 1)
    second = due(lease, lease.wake_at(STEPS + 1), Kind.RELEASE)
    assert (second.token, second.tenure, second.reason) == (first.token, tenure, "step-down")
    lease.asked(STEPS + 3)
    answer(lease, second, STEPS + 3, Outcome.RELEASED, holder=None, token=1)
    lease.hold()
    lease.noticed(STEPS + 3)
    rest = STEPS + 3 + T.rest
    for now in (STEPS + 3, STEPS + 3 + T.heartbeat):
        answer(lease, due(lease, now, Kind.LOOK), now, Outcome.VACANT, holder=None)
    assert lease.next_call(rest - 0.01) is None
    due(lease, rest, Kind.ACQUIRE)


def test_after_a_step_down_nothing_is_acquired_for_a_silent_client_whose_grant_has_ended() -> None:
    """Otherwise the candidate would acquire the lease again for a client that does not ask."""
    lease = leading(100.0, waits=False)
    lease.asked(STEPS - 1)
    asked(lease)
    until = STEPS - 1 + T.grant_ttl
    released(lease, until)
    lease.noticed(until)
    assert lease.next_call(until) is None
    lease.asked(until + 1)
    due(lease, until + 1, Kind.LOOK)


def test_a_client_that_keeps_asking_does_not_delay_the_release_of_a_step_down() -> None:
    lease = asked()
    for second in range(1, 5):
        lease.asked(STEPS + second)
        assert lease.grant(STEPS + second, STEPS + second) is None
    released(lease, STEPS + 5)


def test_nothing_is_renewed_while_a_step_down_waits_for_the_client() -> None:
    lease = asked()
    lease.noticed(STEPS + 0.5)
    lease.step_down_noticed(STEPS + 0.5)
    assert lease.next_call(STEPS + 0.6) is None
    assert lease.wake_at(STEPS + 0.6) > STEPS + 1, "the loop sleeps"


def test_a_term_that_ends_during_a_step_down_is_released() -> None:
    """The sidecar was frozen past the deadline of the term.

    If the deadline ended the term without a release, the candidate could campaign again for the same term.
    """
    lease = asked()
    lease.hold()
    assert released(lease, STEPS + T.ttl - 1).reason == "step-down"
    assert [each.reason for each in lease.transitions()] == ["acquired", "step_down"]


def test_a_release_is_tried_until_the_key_must_have_expired() -> None:
    """The renewal that reported the step-down has extended the key."""
    lease = asked()
    lease.resigned(STEPS, 1)
    lease.failed(due(lease, STEPS, Kind.RELEASE), STEPS, may_execute=True)
    due(lease, STEPS + T.ttl - 1, Kind.RELEASE)


def test_after_a_step_down_the_candidate_rests_for_one_and_a_half_heartbeats() -> None:
    lease = resting()
    assert lease.view(STEPS).state is State.FOLLOWING
    rest = STEPS + 1.5 * T.heartbeat
    for now in (STEPS, STEPS + T.heartbeat):  # even without a watch, looks find the next leader
        answer(lease, due(lease, now, Kind.LOOK), now, Outcome.VACANT, holder=None)
    assert lease.wake_at(STEPS + T.heartbeat) == rest
    assert lease.next_call(rest - 0.01) is None
    answer(lease, due(lease, rest, Kind.ACQUIRE), rest, Outcome.ACQUIRED, token=2)
    assert lease.leads(rest), "a single task leads again"


def test_a_notice_during_the_rest_causes_only_a_look() -> None:
    lease = resting()
    answer(lease, due(lease, STEPS, Kind.LOOK), STEPS, Outcome.VACANT, holder=None)
    for second in (1, 5, 14):
        lease.noticed(STEPS + second)
        answer(lease, due(lease, STEPS + second, Kind.LOOK), STEPS + second, Outcome.VACANT, holder=None)


def test_another_leader_ends_the_rest() -> None:
    lease = resting()
    answer(lease, due(lease, STEPS, Kind.LOOK), STEPS, Outcome.HELD, holder="b", token=2)
    lease.noticed(STEPS + 1)
    due(lease, STEPS + 1, Kind.ACQUIRE)


def test_the_token_of_another_leader_that_has_already_released_ends_the_rest() -> None:
    """The other leader released the lease before this candidate looked."""
    lease = resting()
    answer(lease, due(lease, STEPS, Kind.LOOK), STEPS, Outcome.VACANT, holder=None, token=2)
    due(lease, STEPS, Kind.ACQUIRE)


def test_a_disable_does_not_end_the_rest() -> None:
    lease = resting()
    answer(lease, due(lease, STEPS, Kind.LOOK), STEPS, Outcome.DISABLED, holder="DISABLED")
    lease.noticed(STEPS + 1)
    due(lease, STEPS + 1, Kind.LOOK)


def test_a_resign_does_not_shorten_the_rest() -> None:
    lease = resting()
    lease.resigned(STEPS + 1)
    lease.asked(STEPS + 1.1)
    due(lease, STEPS + 1.1 + YIELD_FOR, Kind.LOOK)


def test_the_rest_counts_from_the_end_of_the_key() -> None:
    """Redis does not answer the release, so the key may keep the other candidates out until it expires."""
    lease = asked()
    lease.resigned(STEPS, 1)
    lease.asked(STEPS)
    lease.hold()
    now = STEPS
    while (call := lease.next_call(now)) is not None and call.kind is Kind.RELEASE:
        lease.failed(call, now, may_execute=True)
        now = lease.wake_at(now)
    expired = STEPS - 0.1 + T.ttl
    assert call is not None
    assert call.kind is Kind.LOOK
    assert expired <= now < expired + 1.25 * T.retry
    answer(lease, call, now, Outcome.VACANT, holder=None)
    assert lease.step_down(now) == "stepped down: leaves the lease to others, at most 15.0 s more"


def test_an_adopted_term_that_was_asked_to_step_down_is_released_and_never_led() -> None:
    """The sidecar was restarted after the operator's command."""
    lease = fresh_lease()
    lease.asked(0.0)
    lease.hold()
    answer(lease, due(lease, 0.0, Kind.ACQUIRE), 0.1, Outcome.STEPPING_DOWN, token=7)
    assert not lease.leads(0.1)
    assert lease.view(0.1).state is State.DRAINING
    assert lease.next_call(T.grant_ttl - 0.01) is None, "a client of the previous process may still act"
    call = released(lease, T.grant_ttl, token=7)
    assert (call.token, call.tenure, call.reason) == (7, "boot-1", "step-down")
    lease.noticed(T.grant_ttl)
    due(lease, T.grant_ttl, Kind.LOOK)


def test_the_step_down_of_an_adopted_term_waits_for_the_grant_of_the_previous_processs_client() -> None:
    """The sidecar was restarted after the operator's command, and another worker of the API stops."""
    lease = fresh_lease()
    lease.asked(0.0)
    lease.hold()
    answer(lease, due(lease, 0.0, Kind.ACQUIRE), 0.1, Outcome.STEPPING_DOWN, token=7)
    assert lease.resigned(0.2, None, "another") is False
    lease.asked(0.3)
    assert lease.next_call(T.grant_ttl - 0.01) is None
    released(lease, T.grant_ttl, token=7)


def test_a_step_down_does_not_wake_a_follower() -> None:
    lease = fresh_lease()
    lease.asked(100.0)
    lease.hold()
    answer(lease, due(lease, 100.0, Kind.ACQUIRE), 100.1, Outcome.HELD, holder="b")
    before = lease.wake_at(101.0)
    lease.step_down_noticed(101.0)
    assert lease.wake_at(101.0) == before
    assert lease.next_call(101.0) is None


def test_a_step_down_notice_during_a_call_is_not_lost() -> None:
    lease = fresh_lease()
    lease.asked(100.0)
    lease.hold()
    call = due(lease, 100.0, Kind.ACQUIRE)
    lease.step_down_noticed(100.05)
    answer(lease, call, 100.1, Outcome.ACQUIRED)
    due(lease, 100.1, Kind.RENEW)


def test_a_step_down_notice_during_a_followers_call_causes_no_second_call() -> None:
    lease = fresh_lease()
    lease.asked(100.0)
    lease.hold()
    call = due(lease, 100.0, Kind.ACQUIRE)
    lease.step_down_noticed(100.05)
    answer(lease, call, 100.1, Outcome.HELD, holder="b")
    assert lease.next_call(100.2) is None


def test_a_step_down_notice_about_an_ended_term_costs_one_renewal() -> None:
    lease = leading(100.0)
    lease.step_down_noticed(101.0)
    answer(lease, due(lease, 101.0, Kind.RENEW), 101.1, Outcome.RENEWED)
    assert lease.leads(101.1)


def test_a_drain_during_a_step_down_releases_the_lease() -> None:
    lease = asked()
    lease.drain(STEPS)
    assert lease.resigned(STEPS + 1, 1)
    released(lease, STEPS + 1)
    assert lease.drained(STEPS + 1)


def test_the_phases_of_a_step_down_are_reported_in_words() -> None:
    lease = leading(100.0)
    assert lease.step_down(STEPS) is None
    asked(lease)
    assert lease.step_down(STEPS) == "asked to step down: waits for its client, at most 4.0 s"
    lease.resigned(STEPS, 1)
    released(lease, STEPS)
    assert lease.step_down(STEPS) == "stepped down: leaves the lease to others, at most 15.0 s more"
    assert lease.step_down(STEPS + 15) is None


def test_the_term_ends_once_with_the_reason_step_down() -> None:
    lease = asked()
    lease.transitions()
    lease.resigned(STEPS, 1)
    released(lease, STEPS)
    assert [(each.leads, each.token, each.reason) for each in lease.transitions()] == [(False, 1, "step_down")]


def test_with_min_replicas_the_first_renewal_follows_the_acquire_at_once() -> None:
    """The renewal appends the confirmed term to the history."""
    lease = Lease("a", T, boot="boot", now=0.0, uniform=lambda low, _: low, replicated=True)
    lease.asked(100.0)
    lease.hold()
    answer(lease, due(lease, 100.0, Kind.ACQUIRE), 100.1, Outcome.UNCONFIRMED)
    again = lease.wake_at(100.1)
    answer(lease, due(lease, again, Kind.ACQUIRE), again, Outcome.ADOPTED)
    answer(lease, due(lease, again, Kind.RENEW), again, Outcome.RENEWED)
    assert lease.next_call(again + 1) is None


# The class `Rest`.


def reply(outcome: Outcome, holder: str | None = None, token: int | None = None) -> Reply:
    return Reply(outcome, holder, token)


def test_after_a_resign_any_other_holder_ends_the_pause() -> None:
    for holder in ("b", "DISABLED"):
        rest = Rest(15.0)
        rest.resigned(100.0)
        rest.heard(reply(Outcome.VACANT, None, 9), "a")
        assert rest.until == 100.0 + YIELD_FOR
        rest.heard(reply(Outcome.HELD, holder), "a")
        assert rest.until < 0


@pytest.mark.parametrize("outcome", [Outcome.LATE, Outcome.WRONG_TYPE, Outcome.FENCE_AHEAD])
def test_a_reply_without_another_leader_does_not_end_the_rest(outcome: Outcome) -> None:
    rest = Rest(15.0)
    rest.stepped_down(7, 100.0)
    rest.heard(reply(outcome, None, 8), "a")
    assert rest.until == 115.0


def test_a_newer_token_of_this_candidate_does_not_end_the_rest() -> None:
    rest = Rest(15.0)
    rest.stepped_down(7, 100.0)
    rest.heard(reply(Outcome.SUPERSEDED, "a", 8), "a")
    assert rest.until == 115.0


def test_a_resign_after_the_rest_starts_a_new_pause() -> None:
    """The rest after the step-down is over, so its token is forgotten.

    Otherwise the token of any later term would end the new pause.
    """
    rest = Rest(15.0)
    rest.stepped_down(7, 100.0)
    rest.resigned(200.0)
    rest.heard(reply(Outcome.VACANT, None, 9), "a")
    assert rest.until == 200.0 + YIELD_FOR
    assert rest.after_step_down(200.0) == 0
