"""What a lease remembers: calls that may still execute, and requests from before a resign."""

from sidecar.protocol import Kind, Outcome
from tests.support.one_lease import BELIEVED, T, answer, due, fresh_lease, leading


def test_a_reply_to_a_later_call_does_not_settle_an_acquire_that_may_still_execute() -> None:
    lease = fresh_lease()
    lease.asked(0.0)
    cut_short = due(lease, 0.0, Kind.ACQUIRE)
    lease.failed(cut_short, 0.1, may_execute=True)
    lease.resigned(0.2)  # ends the demand, so the next request makes a call due at once
    lease.asked(0.2)
    won = lease.wake_at(0.2)
    answer(lease, due(lease, won, Kind.ACQUIRE), won, Outcome.ACQUIRED)
    lease.resigned(won)
    answer(lease, due(lease, won, Kind.RELEASE), won, Outcome.RELEASED, holder=None)
    assert won < cut_short.give_up_at

    assert lease.wake_at(won) == cut_short.give_up_at
    due(lease, cut_short.give_up_at, Kind.LOOK)  # the acquire may have executed after the release


def test_a_drain_waits_until_no_acquire_can_still_execute() -> None:
    lease = fresh_lease()
    lease.asked(0.0)
    cut_short = due(lease, 0.0, Kind.ACQUIRE)
    lease.failed(cut_short, 0.1, may_execute=True)
    lease.drain(0.2)

    assert not lease.drained(0.3)
    look = due(lease, cut_short.give_up_at, Kind.LOOK)
    answer(lease, look, look.sent_at, Outcome.VACANT, holder=None)
    assert lease.drained(look.sent_at)


def test_a_resign_during_an_acquire_yields_even_if_the_client_asks_again_at_once() -> None:
    lease = fresh_lease()
    lease.asked(0.0)
    call = due(lease, 0.0, Kind.ACQUIRE)
    lease.resigned(0.001)
    lease.asked(0.002)
    answer(lease, call, 0.003, Outcome.ACQUIRED)

    assert not lease.leads(0.003)
    lease.next_call(T.grant_ttl)  # by now every grant of the previous process has ended
    assert not lease.leads(T.grant_ttl)


def test_the_end_of_a_held_request_from_before_a_resign_does_not_reduce_later_demand() -> None:
    lease = fresh_lease()
    before = lease.hold()
    lease.resigned(0.0)
    lease.hold()
    lease.unhold(before, 0.1, answered=False)

    assert lease.next_call(10 * T.demand) is not None, "the second request is still held, so there is demand"


def test_a_release_is_tried_until_the_key_must_have_expired() -> None:
    lease = leading(0.0)
    lease.resigned(1.0)
    lease.failed(due(lease, 1.0, Kind.RELEASE), 3.0, may_execute=True)

    lease.failed(due(lease, BELIEVED + 1, Kind.RELEASE), BELIEVED + 1, may_execute=False)
    assert lease.next_call(T.ttl + 0.001) is None
