"""How a lease is released: after a client's silence, a resign or a drain.

By default a lease is not kept without a client.
"""

from math import inf

from sidecar.protocol import YIELD_FOR, Kind, Outcome, Reply, State
from tests.support.lease_model import RedisModel
from tests.support.one_lease import T, answer, due, fresh_lease, leading


def test_the_lease_of_a_silent_client_is_released_when_its_last_grant_ends() -> None:
    lease = leading(100, waits=False)
    assert lease.wake_at(100) == 100 + T.grant_ttl
    assert lease.next_call(100 + T.grant_ttl - 0.001) is None
    due(lease, 100 + T.grant_ttl, Kind.RELEASE)
    assert [transition.reason for transition in lease.transitions()] == ["acquired", "client_silent"]


def test_a_resign_releases_at_once_and_yields_for_a_second() -> None:
    lease = leading(100)
    lease.resigned(101)
    answer(lease, due(lease, 101, Kind.RELEASE), 101.01, Outcome.RELEASED, holder=None)
    lease.asked(101.02)
    answer(lease, due(lease, 101.02, Kind.LOOK), 101.03, Outcome.VACANT, holder=None)
    assert lease.wake_at(101.03) == 101 + YIELD_FOR
    answer(lease, due(lease, 101 + YIELD_FOR, Kind.ACQUIRE), 102.1, Outcome.ACQUIRED, token=2)
    assert lease.leads(102.1)


def test_a_candidate_that_resigned_campaigns_again_after_another_holder() -> None:
    lease = leading(100)
    lease.resigned(101)
    answer(lease, due(lease, 101, Kind.RELEASE), 101.01, Outcome.RELEASED, holder=None)
    lease.asked(101.02)
    answer(lease, due(lease, 101.02, Kind.LOOK), 101.03, Outcome.HELD, holder="b")
    lease.noticed(101.2)  # b has released the lease
    due(lease, 101.2, Kind.ACQUIRE)


def test_an_acquire_that_succeeds_after_the_demand_is_gone_is_released_at_once() -> None:
    lease = fresh_lease()
    lease.asked(100)
    call = due(lease, 100, Kind.ACQUIRE)
    lease.resigned(100.1)
    answer(lease, call, 100.2, Outcome.ACQUIRED)
    assert not lease.leads(100.2)
    assert due(lease, 100.2, Kind.RELEASE).token == 1


def test_a_term_that_no_client_knows_is_released_when_the_demand_ends() -> None:
    lease = fresh_lease()
    lease.asked(100)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.ACQUIRED)
    assert lease.wake_at(100) == 100 + T.demand
    due(lease, 100 + T.demand, Kind.RELEASE)


def test_nothing_is_called_without_demand() -> None:
    lease = fresh_lease()
    assert (lease.next_call(50), lease.wake_at(50)) == (None, inf)
    assert lease.view(50).state is State.WAITING
    lease.asked(100)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.HELD, holder="b")
    assert (lease.next_call(100 + T.demand), lease.wake_at(100 + T.demand)) == (None, inf)


def test_without_require_client_a_candidate_campaigns_and_keeps_its_lease_without_demand() -> None:
    lease = fresh_lease(require_client=False)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.ACQUIRED)
    answer(lease, due(lease, 110, Kind.RENEW), 110, Outcome.RENEWED)
    assert lease.leads(134)


def test_a_held_request_is_demand_until_its_client_resigns() -> None:
    lease = fresh_lease()
    lease.asked(100)
    ticket = lease.hold()
    assert lease.view(100 + 3 * T.demand).state is not State.WAITING
    lease.resigned(150)
    assert lease.view(150).state is State.WAITING
    lease.unhold(ticket, 151, answered=True)
    assert lease.view(151).state is State.WAITING


def test_a_held_request_whose_client_disconnected_leaves_no_demand() -> None:
    lease = fresh_lease()
    lease.asked(100)
    ticket = lease.hold()
    lease.unhold(ticket, 150, answered=False)
    assert lease.view(150).state is State.WAITING


def test_a_drain_waits_for_the_last_grant_and_then_releases() -> None:
    redis, lease = RedisModel(T.ttl, T.heartbeat), fresh_lease()
    lease.asked(100)
    call = due(lease, 100, Kind.ACQUIRE)
    lease.replied(call, redis.execute(call, "a", 100), 100)
    lease.grant(103, 103)
    lease.drain(104)
    assert (lease.view(104).state, lease.leads(104), lease.grant(104, 104)) == (State.DRAINING, False, None)
    assert (lease.next_call(104), lease.drained(104)) == (None, False)
    assert lease.wake_at(104) == 103 + T.grant_ttl
    call = due(lease, 103 + T.grant_ttl, Kind.RELEASE)
    lease.replied(call, redis.execute(call, "a", 108), 108)
    assert lease.drained(108)
    assert not lease.may_hold_key
    assert redis.holder is None


def test_a_drain_ends_at_a_resign_without_waiting_for_the_grant() -> None:
    lease = leading(100)
    lease.drain(101)
    lease.resigned(101.1)
    answer(lease, due(lease, 101.1, Kind.RELEASE), 101.2, Outcome.RELEASED, holder=None)
    assert lease.drained(101.2)


def test_a_drain_ends_within_its_bound_even_if_redis_is_silent() -> None:
    lease = leading(100)
    lease.drain(101)
    now = 101.0
    while not lease.drained(now):
        if call := lease.next_call(now):
            lease.failed(call, now := now + T.call_limit, may_execute=True)
        else:
            now = lease.wake_at(now)
    assert now <= 101 + T.grant_ttl + 4 * T.call_limit
    assert lease.may_hold_key


def test_a_resign_of_another_term_releases_nothing() -> None:
    lease = leading(100)
    assert lease.resigned(101, token=2) is False
    assert lease.leads(101)
    assert lease.grant(101, 101) == T.grant_ttl
    assert lease.resigned(102, token=1) is True
    due(lease, 102, Kind.RELEASE)
    assert lease.resigned(103, token=1) is False, "the term has already ended"


def test_a_late_resign_of_a_dead_client_does_not_end_the_grant_of_its_successor() -> None:
    lease = fresh_lease()
    lease.asked(100)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.ACQUIRED)
    assert lease.grant(100, 100, "dead") == T.grant_ttl
    assert lease.grant(105, 105, "successor") is None, "the client needs its own term"
    answer(lease, due(lease, 105, Kind.RELEASE), 105.1, Outcome.RELEASED, holder=None)
    lease.asked(105.2)
    answer(lease, due(lease, 105.2, Kind.ACQUIRE), 105.3, Outcome.ACQUIRED, token=2)
    assert lease.grant(105.3, 105.3, "successor") == T.grant_ttl
    assert lease.resigned(106, 1, "dead") is False
    assert lease.resigned(106, client="dead") is False
    assert lease.leads(106)
    assert lease.resigned(107, 2, "successor") is True
    due(lease, 107, Kind.RELEASE)


def test_a_term_adopted_too_late_is_kept_until_grants_of_the_previous_process_end() -> None:
    lease = fresh_lease(now=200)
    lease.asked(200)
    call = due(lease, 200, Kind.ACQUIRE)
    lease.drain(200.1)
    answer(lease, call, 200.2, Outcome.ADOPTED)
    lease.noticed(201)
    assert (lease.next_call(201), lease.drained(201)) == (None, False)
    assert lease.wake_at(201) == 200 + T.grant_ttl
    due(lease, 200 + T.grant_ttl, Kind.RELEASE)


def test_a_resign_by_another_client_does_not_end_a_grant_of_the_previous_process() -> None:
    lease = fresh_lease(now=200)
    lease.asked(200)
    call = due(lease, 200, Kind.ACQUIRE)
    lease.drain(200.1)
    answer(lease, call, 200.2, Outcome.ADOPTED)
    assert lease.resigned(200.3, None, "another") is False
    assert lease.next_call(201) is None
    due(lease, 200 + T.grant_ttl, Kind.RELEASE)


def test_the_key_of_an_ended_term_is_checked_and_released_when_demand_ends() -> None:
    """The renewal may have executed although its reply was lost.

    In this case the key still exists, and no other candidate can lead.
    """
    lease = leading(100)
    lost = due(lease, 124.9, Kind.RENEW)
    lease.failed(lost, lost.give_up_at, may_execute=True)
    lease.tick(125)
    assert not lease.leads(125)
    lease.resigned(125)
    answer(lease, due(lease, lease.wake_at(125), Kind.LOOK), 126.5, Outcome.SUPERSEDED)
    due(lease, 126.5, Kind.RELEASE)


def test_a_term_of_another_process_with_the_same_id_is_not_released() -> None:
    lease = leading(100)
    lease.resigned(101)
    call = due(lease, 101, Kind.RELEASE)
    lease.replied(call, Reply(Outcome.SUPERSEDED, "a", 2, ttl=30.0, tenure="another-1"), 101.1)
    assert (lease.next_call(110), lease.wake_at(110)) == (None, inf)


def test_a_late_acquire_of_the_previous_process_is_released_with_the_current_term() -> None:
    """The previous process was killed during an acquire. This acquire executed late and adopted the current term."""
    lease = fresh_lease(now=200)
    lease.asked(200)
    answer(lease, due(lease, 200, Kind.ACQUIRE), 200.1, Outcome.ACQUIRED)
    lease.resigned(210)
    call = due(lease, 210, Kind.RELEASE)
    lease.replied(call, Reply(Outcome.SUPERSEDED, "a", call.token, ttl=30.0, tenure="predecessor-7"), 210.1)
    again = due(lease, 210.1 + YIELD_FOR, Kind.RELEASE)
    assert (again.token, again.tenure) == (call.token, "predecessor-7")


def test_no_call_outlives_the_end_of_a_drain() -> None:
    """A release without a reply is repeated until the end of the drain, and then the process must end."""
    lease = leading(100)
    lease.drain(101)
    end = 101 + T.grant_ttl + 3 * T.call_limit
    now = 101.0
    calls = 0
    while not lease.drained(now):
        if (call := lease.next_call(now)) is not None:
            calls += 1
            assert call.give_up_at <= end
            lease.failed(call, now := call.give_up_at, may_execute=True)
        else:
            now = lease.wake_at(now)
    assert (calls > 1, now) == (True, end)
