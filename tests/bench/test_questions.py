"""Short runs of the benchmarks that compare the sidecar with a bare aiohttp program. An aiohttp client replaces wrk."""

import asyncio
import time

import aiohttp
import pytest

from bench import footprint, questions
from bench.questions import Load


def by_aiohttp(url: str, connections: int, seconds: float) -> Load:
    """Send requests one after the other, with aiohttp."""

    async def ask() -> list[float]:
        times: list[float] = []
        until = time.perf_counter() + seconds
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
            while time.perf_counter() < until:
                began = time.perf_counter()
                async with session.get(url, raise_for_status=True) as answer:
                    await answer.read()
                times.append((time.perf_counter() - began) * 1e6)
        return times

    times = asyncio.run(ask())
    return Load(len(times), sum(times), min(times), max(times), max(times), 0)


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_requests_are_compared_and_every_held_request_is_answered() -> None:
    found = questions.measure(by_aiohttp, turns=1, seconds=0.2, held=20, rounds=1)
    *cases, held, commands = found.tables
    assert [table.header[0] for table in cases] == [
        "`/is-leader/bench`, 1 connection",
        "`/is-leader/bench`, 16 connections",
        "`/is-leader`, 16 connections",
    ]
    assert held.rows[0][1:3] == ("20", "20")
    assert [row[0] for row in commands.rows] == ["16 connections", "one request a second"]
    assert "failed: 0" in found.text


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_the_footprint_has_a_ratio_and_a_goal_for_each_figure() -> None:
    figures, idle = footprint.measure(starts=1, number=1, seconds=0.5).tables
    assert [row[0] for row in figures.rows] == ["memory, MiB", "start, s", "health check, ms", "its processor time, ms"]
    assert all(float(row[3]) > 0 and float(row[4]) > 1 for row in figures.rows)
    assert float(idle.rows[0][1]) > 0
