"""A seed identifies a schedule."""

import pytest

from tests.chaos.schedule import LEASES, OPERATOR, POSTGRES, REDIS, REDIS_OF, Kind, Redis, plan


def test_two_schedules_are_equal_only_with_the_same_seed() -> None:
    assert plan(1, 10, 4, 6.0) == plan(1, 10, 4, 6.0)
    assert plan(1, 10, 4, 6.0) != plan(2, 10, 4, 6.0)


@pytest.mark.parametrize("redis", Redis)
def test_ten_minutes_contain_every_kind_of_fault_that_the_redis_allows(redis: Redis) -> None:
    possible = set(Kind) - REDIS | set(REDIS_OF[redis])
    done = {fault.kind for each in plan(3, 10, 4, 6.0, isolating=True, redis=redis) for fault in each.faults}
    assert done == possible
    done = {fault.kind for each in plan(3, 10, 4, 6.0, redis=redis) for fault in each.faults}
    assert done == possible - {Kind.ISOLATE}


def test_with_only_a_storm_contains_no_other_fault() -> None:
    rounds = plan(2, 10, 4, 6.0, redis=Redis.SENTINELS, only=[Kind.UNSEEN])
    assert {fault.kind for each in rounds for fault in each.faults} == {Kind.UNSEEN}


@pytest.mark.parametrize("redis", Redis)
@pytest.mark.parametrize("seed", range(20))
def test_every_fault_has_a_target_and_faults_of_one_server_do_not_overlap(seed: int, redis: Redis) -> None:
    tasks = {f"task{number}" for number in range(1, 5)}
    for each in plan(seed, 10, 4, 6.0, redis=redis):
        for group in (REDIS, POSTGRES):
            ends = 0.0
            for fault in each.faults:
                if fault.kind in group:
                    assert fault.at >= ends
                    ends = fault.at + fault.seconds
        for fault in each.faults:
            assert 0 <= fault.at <= each.seconds
            if fault.kind in REDIS or fault.kind in POSTGRES:
                assert fault.target == ""
            else:
                assert fault.target in (set(LEASES) if fault.kind in OPERATOR else tasks | set(LEASES))


def test_a_lease_is_disabled_for_at_least_its_ttl() -> None:
    for each in plan(1, 60, 4, 6.0):
        assert all(fault.seconds >= 6.0 for fault in each.faults if fault.kind is Kind.DISABLE)


@pytest.mark.parametrize("minutes", [0.1, 0.5, 1, 3, 10])
def test_the_storms_fit_into_the_requested_duration(minutes: float) -> None:
    rounds = plan(1, minutes, 3, 3.0)
    assert rounds
    assert sum(each.seconds for each in rounds) <= max(60 * minutes, 3.0)
