"""A leader resigns if all its writes fail for a certain time. The tests move the clock."""

from dataclasses import dataclass

import pytest

from service.database.write_watch import (
    MAX_LIMIT,
    NOTHING_COMMITTED_LIMIT,
    RESIGN_PAUSE,
    TROUBLE_LIFETIME,
    LeaseWrites,
    WriteWatch,
)

LIMIT = NOTHING_COMMITTED_LIMIT


@dataclass
class Clock:
    time: float = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def writes(clock: Clock) -> LeaseWrites:
    writes = LeaseWrites(clock)
    writes.begin_term()
    return writes


def test_a_term_ends_after_thirty_seconds_in_which_all_writes_failed(writes: LeaseWrites, clock: Clock) -> None:
    assert LIMIT == 30
    writes.due()
    clock.time += 1
    writes.failed()
    clock.time += 9
    writes.failed()
    assert writes.remaining() == LIMIT - 10
    clock.time += LIMIT
    assert writes.remaining() == 0


def test_a_slow_write_that_has_not_failed_does_not_end_the_term(writes: LeaseWrites, clock: Clock) -> None:
    writes.due()
    clock.time += 10 * LIMIT
    assert writes.remaining() is None


def test_one_failure_does_not_end_the_term_unless_it_took_as_long_as_the_limit(
    writes: LeaseWrites, clock: Clock
) -> None:
    writes.due()
    writes.failed()
    assert writes.remaining() is None
    writes.committed()
    writes.due()
    clock.time += LIMIT
    writes.failed()
    assert writes.remaining() == 0


def test_a_failed_write_was_due_before_its_failure(writes: LeaseWrites) -> None:
    writes.failed(waited=10)
    writes.failed(waited=20)
    assert writes.remaining() == LIMIT - 10
    writes.cleared()
    writes.failed(waited=LIMIT)
    assert writes.remaining() == 0


def test_a_commit_restarts_the_limit(writes: LeaseWrites, clock: Clock) -> None:
    for settle in (writes.committed, writes.cleared):
        writes.failed()
        writes.failed()
        settle()
        assert writes.remaining() is None
    clock.time += LIMIT
    writes.failed()
    writes.failed()
    assert writes.remaining() == LIMIT


def term_without_commit(writes: LeaseWrites, clock: Clock, trouble: float = 0.0) -> float:
    """Run a term that claims the fence and commits nothing else, and return its length."""
    writes.begin_term(trouble)
    writes.cleared()
    writes.due()
    writes.failed()
    writes.failed()
    remaining = writes.remaining()
    assert remaining is not None
    clock.time += remaining
    assert writes.give_up() == remaining
    return remaining


def test_terms_without_a_commit_and_their_pauses_grow_until_a_commit(writes: LeaseWrites, clock: Clock) -> None:
    terms, pauses = [], []
    for _ in range(7):
        terms.append(term_without_commit(writes, clock))
        pauses.append(writes.pause)
    assert terms == [30, 60, 120, 240, 480, MAX_LIMIT, MAX_LIMIT]
    assert pauses == [
        RESIGN_PAUSE[0],
        30,
        RESIGN_PAUSE[1],
        RESIGN_PAUSE[1],
        RESIGN_PAUSE[1],
        RESIGN_PAUSE[1],
        RESIGN_PAUSE[1],
    ]
    writes.begin_term()
    writes.committed()
    assert term_without_commit(writes, clock) == LIMIT
    assert writes.pause == RESIGN_PAUSE[0]


@pytest.mark.parametrize("outage", [60.0, MAX_LIMIT])
def test_a_commit_ends_the_long_limit_of_a_term_that_began_in_an_outage(
    writes: LeaseWrites, clock: Clock, outage: float
) -> None:
    writes.begin_term(trouble=outage)
    for settle, limit in ((writes.cleared, outage), (writes.committed, LIMIT)):
        settle()
        writes.failed()
        writes.failed()
        assert writes.remaining() == limit


@pytest.mark.parametrize("tasks", [2, 5, 50])
def test_if_no_task_can_write_the_lead_moves_at_most_six_times_in_ten_minutes(tasks: int, clock: Clock) -> None:
    fleet = [LeaseWrites(clock) for _ in range(tasks)]
    began, terms = clock.time, 0
    while clock.time - began < 600:
        term_without_commit(fleet[terms % tasks], clock, trouble=clock.time - began)
        terms += 1
    assert terms <= 6


def test_the_first_term_without_a_commit_ends_at_the_limit(clock: Clock) -> None:
    writes = LeaseWrites(clock)
    assert term_without_commit(writes, clock, trouble=0.0) == LIMIT


def test_a_refused_write_is_the_databases_trouble_until_a_write_is_accepted_or_the_refusal_is_old(
    clock: Clock,
) -> None:
    watch = WriteWatch(clock=clock)
    for passing in ("23505", "53200", "53300", None):
        watch.refused(passing, "duplicate key, no memory, no connection, connection lost")
        assert not watch.trouble
    for state in ("25006", "53100", "58030"):
        watch.refused(state, "no room")
        assert str(watch.trouble) == "no room"
        watch.not_read_only()
        assert bool(watch.trouble) == (state != "25006")
        watch.accepted()
        assert not watch.trouble
    watch.refused("53100", "no room")
    clock.time += TROUBLE_LIFETIME
    assert not watch.trouble
