"""The benchmark of hand-overs: a few real rounds, and its table."""

import asyncio
from dataclasses import replace

import pytest

from bench.handover.contenders import LIBRARY, PYTHON_REDIS_LOCK
from bench.handover.measure import measure
from bench.handover.tables import Options

HERE = replace(PYTHON_REDIS_LOCK, project=None)
"""python-redis-lock in the environment of the tests."""


def test_ours_and_a_peer_hand_over_by_sigterm() -> None:
    """Each round has a positive time; two candidates that work at once end the benchmark with an error."""
    found = asyncio.run(measure(Options((LIBRARY, HERE), rounds=3, kills=0, ttl=3.0)))
    rows = {row[0]: row for row in found.tables[0].rows}
    assert rows.keys() == {LIBRARY.name, HERE.name}
    assert all(row[-1] == "3" for row in rows.values())
    assert all(float(ratio) > 0 for ratio in rows[LIBRARY.name][1:3])
    assert rows[HERE.name][1:3] == ("1.00", "1.00")
    assert "Redis" in found.versions


@pytest.mark.slow
def test_ours_and_a_peer_survive_a_lost_leader() -> None:
    """Nobody leads before the lost leader's lease has expired, whatever was renewed before."""
    found = asyncio.run(measure(Options((LIBRARY, HERE), rounds=1, kills=2, ttl=3.0)))
    rows = {row[0]: row for row in found.tables[-1].rows}
    assert rows.keys() == {LIBRARY.name, HERE.name}
    assert all(float(row[1]) > -5 and row[-1] == "2" for row in rows.values()), rows
