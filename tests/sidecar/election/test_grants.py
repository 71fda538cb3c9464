"""Only one client of a task may act at a time."""

from math import inf, nextafter

import pytest

from sidecar.election.claims import Grants
from sidecar.election.facts import OWNER_UNKNOWN
from sidecar.protocol import Kind, Outcome, Reply
from tests.support.one_lease import BELIEVED, T, answer, due, fresh_lease


def test_one_client_at_a_time_is_granted_until_its_grant_is_over() -> None:
    lease = fresh_lease()
    lease.asked(100)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.ACQUIRED)
    assert lease.grant(100, 100, "one") == T.grant_ttl
    assert lease.grant(101, 101, "two") is None
    assert lease.grant(104, 104, "one") == T.grant_ttl
    assert lease.answer_valid_for(108, "two") == 104 + T.grant_ttl - 108
    assert lease.grant(108, 108, "one") == T.grant_ttl


def test_no_two_clients_are_granted_one_token() -> None:
    """Otherwise the fence would accept the writes of both clients."""
    lease = fresh_lease()
    lease.asked(100)
    lease.hold()
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.ACQUIRED)
    lease.grant(100, 100, "frozen")
    assert lease.grant(100 + T.grant_ttl, 100 + T.grant_ttl, "another") is None
    answer(lease, due(lease, 100 + T.grant_ttl, Kind.RELEASE), 105.1, Outcome.RELEASED, holder=None)
    lease.asked(105.2)
    answer(lease, due(lease, 105.2, Kind.ACQUIRE), 105.3, Outcome.ACQUIRED, token=2)
    assert lease.grant(105.3, 105.3, "another", token=None) == T.grant_ttl
    assert lease.grant(105.4, 105.4, "frozen", token=1) is None


def test_a_term_adopted_after_its_deadline_still_belongs_to_its_client() -> None:
    """Redis was unreachable until the term had ended, but the key has not expired."""
    lease = fresh_lease()
    lease.asked(100)
    lease.hold()
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.ACQUIRED, token=7)
    lease.grant(100, 100, "frozen")
    lease.failed(due(lease, 110, Kind.RENEW), 112, may_execute=False)
    lease.tick(100 + BELIEVED)
    answer(lease, due(lease, 126, Kind.ACQUIRE), 126, Outcome.ADOPTED, token=7)
    assert lease.grant(126.1, 126.1, "another") is None, "the client needs its own term"
    due(lease, 126.1, Kind.RELEASE)


def test_a_client_without_a_name_is_always_granted_while_the_sidecar_leads() -> None:
    lease = fresh_lease()
    lease.asked(100)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.ACQUIRED)
    assert lease.grant(100, 100, "one") == T.grant_ttl
    assert lease.grant(101, 101) == T.grant_ttl
    assert lease.grant(102, 102, "one") == T.grant_ttl
    assert lease.resigned(103) is True, "a resign without a name ends the grant"


def test_an_adopted_term_belongs_to_the_client_of_the_previous_process_until_its_grant_ends() -> None:
    lease = fresh_lease(now=100)
    lease.asked(100)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.ADOPTED, token=7)
    assert lease.grant(101, 101, "another") is None
    assert lease.grant(101, 101, "another", token=6) is None
    assert lease.grant(102, 102, "believer", token=7) == T.grant_ttl
    assert lease.grant(103, 103, "another", token=7) is None, "the client with the earlier grant still leads"


def test_a_client_without_a_grant_gets_an_adopted_term_once_all_earlier_grants_have_ended() -> None:
    lease = fresh_lease(now=100)
    lease.asked(100)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.ADOPTED)
    assert lease.answer_valid_for(103, "one") == T.grant_ttl - 3
    assert lease.grant(100 + T.grant_ttl, 100 + T.grant_ttl, "one") is None, "the client needs its own term"
    due(lease, 100 + T.grant_ttl, Kind.RELEASE)


def test_a_client_that_presents_the_token_of_an_adopted_term_is_granted_it_at_once() -> None:
    lease = fresh_lease(now=100)
    lease.asked(100)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.ADOPTED, token=7)
    assert lease.grant(101, 101, "one", token=7) == T.grant_ttl


def test_after_a_restart_a_resign_of_one_worker_does_not_end_an_earlier_grant_of_another() -> None:
    lease = fresh_lease(now=100)
    lease.asked(100)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100.2, Outcome.ADOPTED, token=7)
    assert lease.resigned(101, client="bystander") is False
    lease.asked(101.1)
    due(lease, 102, Kind.RENEW)
    assert lease.grant(102, 102, "believer", token=7) == T.grant_ttl
    assert lease.resigned(103, 7, "believer") is True
    assert not lease.leads(103)


def test_before_the_first_reply_of_redis_a_resign_of_one_worker_does_not_end_an_earlier_grant_of_another() -> None:
    lease = fresh_lease(now=100)
    lease.asked(100)
    call = due(lease, 100, Kind.ACQUIRE)
    lease.resigned(100, client="bystander")
    answer(lease, call, 100.2, Outcome.ADOPTED, token=7)
    assert lease.next_call(100 + T.grant_ttl - 0.001) is None
    due(lease, 100 + T.grant_ttl, Kind.RELEASE)


@pytest.mark.parametrize("first", [outcome for outcome in OWNER_UNKNOWN if outcome is not Outcome.SUPERSEDED])
def test_a_first_reply_that_shows_no_owner_gives_the_term_of_the_previous_process_to_no_new_client(
    first: Outcome,
) -> None:
    lease = fresh_lease(now=100)
    lease.asked(100)
    lease.hold()
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, first, token=7)
    later = max(100 + T.grant_ttl, lease.wake_at(100))
    answer(lease, due(lease, later, Kind.ACQUIRE), later, Outcome.ADOPTED, token=7)
    assert lease.grant(later, later, "another") is None
    due(lease, later, Kind.RELEASE)


def test_a_look_that_finds_the_term_of_the_previous_process_gives_it_to_no_new_client() -> None:
    lease = fresh_lease(now=100)
    lease.asked(100)
    lease.failed(due(lease, 100, Kind.ACQUIRE), 102, may_execute=True)
    lease.resigned(102)
    found = Reply(Outcome.SUPERSEDED, "a", 7, ttl=T.ttl, tenure="predecessor-1")
    lease.replied(due(lease, lease.wake_at(102), Kind.LOOK), found, 103)
    lease.asked(106)
    answer(lease, due(lease, 106, Kind.ACQUIRE), 106, Outcome.ADOPTED, token=7)
    assert lease.grant(106, 106, "another") is None


def test_an_older_term_that_a_failover_restores_is_given_to_no_new_client() -> None:
    """The replica did not have the newer term, and still has the key of the older term."""
    lease = fresh_lease()
    lease.asked(100)
    lease.hold()
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.ACQUIRED, token=8)
    answer(lease, due(lease, 110, Kind.RENEW), 110, Outcome.SUPERSEDED, token=7)
    again_at = lease.wake_at(110)
    answer(lease, due(lease, again_at, Kind.ACQUIRE), again_at, Outcome.ADOPTED, token=7)
    assert lease.grant(again_at, again_at, "another") is None


def test_a_term_found_after_a_lost_reply_belongs_to_no_client_yet() -> None:
    lease = fresh_lease()
    lease.asked(100)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.HELD, holder="b")
    lease.noticed(101)
    lost = due(lease, 101, Kind.ACQUIRE)
    lease.failed(lost, 103, may_execute=True)
    lease.asked(103)
    answer(lease, due(lease, lease.wake_at(103), Kind.ACQUIRE), 105, Outcome.ADOPTED)
    assert lease.grant(105, 105, "one") == T.grant_ttl


def test_a_new_term_is_granted_at_once() -> None:
    lease = fresh_lease(now=100)
    lease.asked(100)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.ACQUIRED)
    assert lease.grant(100, 100, "one") == T.grant_ttl


def test_a_second_grant_that_ends_earlier_does_not_shorten_the_first() -> None:
    grants = Grants(0)
    grants.give("one", 10)
    grants.give("one", 8)  # the answer to an earlier request
    assert grants.seconds_held_by_other_client(0, "two", knows_term=True) == 10
    assert grants.take_back(9, "two", knows_term=True) is False
    assert grants.take_back(9, "one", knows_term=False) is True
    assert grants.seconds_held_by_other_client(9, "two", knows_term=True) == 0


def test_a_request_is_held_only_while_its_answer_stays_the_same() -> None:
    lease = fresh_lease(require_client=False)
    assert lease.answer_valid_for(100, "one") == inf
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.ACQUIRED)
    assert lease.answer_valid_for(100, "one") == 0, "no client has a grant yet, so this client gets one at once"
    lease.grant(100, 100, "one")
    assert lease.answer_valid_for(101, "one") == T.grant_ttl / 2
    assert lease.answer_valid_for(101, "") == T.grant_ttl / 2
    assert lease.answer_valid_for(101, "two") == T.grant_ttl / 2
    assert lease.answer_valid_for(104, "two") == T.grant_ttl - 4
    over = 100 + T.grant_ttl
    for client in ("one", "two", ""):
        assert lease.answer_valid_for(over, client) == 0


def test_a_client_refused_because_of_an_earlier_grant_is_answered_once_that_grant_ends() -> None:
    """Otherwise the request, which carries the version from the refusal, would be held for another half of a grant."""
    lease = fresh_lease(now=100, require_client=False)
    answer(lease, due(lease, 100, Kind.ACQUIRE), 100, Outcome.ADOPTED)
    over = 100 + T.grant_ttl
    just_before = nextafter(over, 0)
    assert lease.grant(just_before, just_before, "one") is None
    version = lease.view(just_before).version
    assert lease.answer_valid_for(over, "one") == 0
    assert lease.grant(over, over, "one") is None, "the client needs its own term"
    assert lease.view(over).version != version
