"""The legs of a hand-over, each between two consecutive steps in the records of real processes."""

from pathlib import Path

import pytest

from bench.legs import LEGS, STEPS, Records, hand_overs, record
from ops.local.servers import RedisServer


def test_the_steps_of_one_hand_over_are_found_among_others() -> None:
    """Steps in the other direction and repeated steps do not belong to the hand-over."""
    old_client = [("work ends", 1.0), ("resign begins", 1.1), ("answer read", 1.95)]
    new_client = [("answer read", 1.8), ("work begins", 1.9), ("work ends", 3.0)]
    old_sidecar = [("resign arrives", 1.2), ("script sent", 1.3), ("notice arrives", 1.35)]
    new_sidecar = [("notice arrives", 1.4), ("notice arrives", 1.45), ("script sent", 1.5)]
    new_sidecar += [("acquire: acquired", 1.6), ("answer made", 1.7)]
    found = hand_overs(Records([old_client, new_client, old_sidecar, new_sidecar], [0.0] * 4))
    assert found == [[1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9]]


@pytest.mark.slow
def test_every_leg_is_measured_in_real_processes(redis_server: RedisServer, tmp_path: Path) -> None:
    """If a function of the product is renamed, the records lack the step that it marks, and this test fails."""
    assert len(LEGS) == len(STEPS) - 1
    found = hand_overs(record(redis_server.url, 20))
    assert found
    assert all(times == sorted(times) for times in found)
