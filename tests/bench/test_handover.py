"""The benchmark of hand-overs: a few real rounds, its tables, and its errors."""

import asyncio
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import environments
from bench.handover.contenders import CONTENDERS, LIBRARY, PYTHON_REDIS_LOCK
from bench.handover.measure import measure
from bench.handover.tables import Options, stop_table
from bench.report import Table

ROOT = Path(__file__).parents[2]
HERE = replace(PYTHON_REDIS_LOCK, project=None)
"""python-redis-lock in the environment of the tests."""


def rows(table: Table) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in table.rows}


@pytest.mark.slow
def test_the_sidecar_and_a_peer_hand_over_by_sigterm() -> None:
    """Every measured time is above zero. If two candidates worked at once, the benchmark would fail."""
    found = asyncio.run(measure(Options((LIBRARY, HERE), rounds=3, kills=0, ttl=3.0)))
    stops, legs = (rows(table) for table in found.tables)
    assert stops.keys() == legs.keys() == {LIBRARY.name, HERE.name}
    assert all(float(figure) > 0 for row in (*stops.values(), *legs.values()) for figure in row)
    assert {row[-1] for row in (*stops.values(), *legs.values())} == {"3"}
    assert [plot.name for plot in found.plots] == ["handover"]
    assert "Redis" in found.versions


@pytest.mark.slow
def test_the_sidecar_and_a_peer_replace_a_lost_leader() -> None:
    """No candidate leads before the lost leader's lease has expired.

    Redis reports the expiry in whole milliseconds, so a measured time may be slightly below zero.
    """
    found = asyncio.run(measure(Options((LIBRARY, HERE), rounds=1, kills=2, ttl=3.0)))
    kills = rows(found.tables[-1])
    assert kills.keys() == {LIBRARY.name, HERE.name}
    assert all(float(median) > -5 and rounds == "2" for median, _, rounds in kills.values()), kills


def test_the_table_has_ratios_to_python_redis_lock_and_the_goals() -> None:
    table = stop_table({LIBRARY: [0.002, 0.003], HERE: [0.002, 0.001]})
    assert rows(table)[LIBRARY.name] == ("1.67", "1.50", "2.50", "3.00", "3.00", "2")
    assert "median at most 1.0 (missed)" in table.note
    assert "99th percentile at most 1.5 (met)" in table.note
    assert rows(stop_table({LIBRARY: [0.002]}))[LIBRARY.name][:2] == ("-", "-")


@pytest.mark.parametrize(("key", "package"), [("kazoo", "zookeeper"), ("etcd", "etcd-server")])
def test_a_missing_server_is_named_with_the_option_that_leaves_it_out(key: str, package: str, tmp_path: Path) -> None:
    others = [f"--without={each.key}" for each in CONTENDERS if each.key != key]
    done = subprocess.run(
        [sys.executable, "-m", "bench.handover", *others],
        cwd=ROOT, env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(f"package {package}. The option --without {key} leaves it out.")


def test_every_library_has_a_lock_file_that_make_lock_updates() -> None:
    files = {file.stem for file in environments.LOCKS.iterdir()}
    assert {each.project for each in CONTENDERS if each.project} <= files
    assert all(environments.version(project) for project in files)
    peers = re.findall(r"^PEERS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(peers[0].split()) == files
