"""New streams while memory is short: the rule that refuses them, and the API's answers."""

import asyncio
import logging
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from service.api import stream_admission
from service.api.cgroup_memory import MemoryUse
from service.api.stream_admission import NoNewStream, StreamAdmission, refuses
from service.telemetry import HttpMetrics
from tests.support.served_api import PORTFOLIO, Served
from tests.support.waiting import eventually

STREAM = f"/portfolios/{PORTFOLIO}/stream"


@pytest.mark.parametrize(
    ("share", "before", "refused"),
    [
        (0.10, False, False),
        (0.79, False, False),
        (0.82, False, False),
        (0.85, False, False),
        (0.86, False, True),
        (1.00, False, True),
        (0.86, True, True),
        (0.85, True, True),
        (0.80, True, True),
        (0.79, True, False),
    ],
)
def test_streams_are_refused_above_85_percent_until_below_80(share: float, before: bool, refused: bool) -> None:
    assert refuses(MemoryUse(round(share * 1000), 1000), refused_before=before) is refused


def test_without_a_limit_streams_are_never_refused() -> None:
    assert refuses(None, refused_before=False) is False
    assert refuses(None, refused_before=True) is False


@pytest.fixture
async def streaming(served: Served) -> AsyncIterator[Served]:
    """The API with the task that serves its streams."""
    task = asyncio.create_task(served.streams.run(served.store))
    yield served
    task.cancel()
    await asyncio.wait((task,))


async def test_a_new_stream_is_refused_while_an_open_one_continues(
    streaming: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served = streaming
    caplog.set_level(logging.INFO, "service.api.stream_admission")
    await served.write_live("1")
    async with served.session.get(served.url + STREAM) as stream:
        assert stream.status == 200
        await _event(stream)

        served.memory = MemoryUse(900, 1000)
        served.admission.look()
        async with served.session.get(served.url + STREAM) as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
            assert await refused.json() == {
                "error": "the memory of this task is short; no new stream can be opened now"
            }
        assert (await served.get(f"/portfolios/{PORTFOLIO}/live"))[0] == 200
        status, health = await served.get_internal("/healthz")
        assert status == 200, "the task stays healthy, because a replacement would break the open streams"
        assert health["memory"].endswith("are in use; new streams are refused")
        assert served.registry.get_sample_value("portfolio_streams_refused") == 1
        assert served.registry.get_sample_value("portfolio_memory_used_share") == 0.9

        await served.write_live("2")
        await _event(stream)

        served.memory = MemoryUse(820, 1000)
        served.admission.look()
        async with served.session.get(served.url + STREAM) as refused:
            assert refused.status == 503

        served.memory = MemoryUse(790, 1000)
        served.admission.look()
        async with served.session.get(served.url + STREAM) as accepted:
            assert accepted.status == 200
    assert (await served.get_internal("/healthz"))[1]["memory"] == "ok"
    assert served.registry.get_sample_value("portfolio_streams_refused") == 0
    levels = [(record.levelname, record.getMessage().split(":")[0]) for record in caplog.records]
    assert levels == [("WARNING", "new streams are refused"), ("INFO", "new streams are accepted again")]


async def test_a_new_stream_is_refused_while_too_many_are_open(
    streaming: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served = streaming
    caplog.set_level(logging.INFO, "service.api.stream_admission")
    served.admission._most = 2
    async with served.session.get(served.url + STREAM) as first:
        async with served.session.get(served.url + STREAM) as second:
            assert (first.status, second.status) == (200, 200)
            for _ in range(2):
                async with served.session.get(served.url + STREAM) as refused:
                    assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
                    assert await refused.json() == {
                        "error": "this task has too many open streams; no new stream can be opened now"
                    }
            served.admission.look()
            assert served.registry.get_sample_value("portfolio_streams_refused") == 1
        await eventually(lambda: served.admission._open == 1)
        async with served.session.get(served.url + STREAM) as accepted:
            assert accepted.status == 200
    await eventually(lambda: not served.admission._open)
    served.admission.look()
    assert served.registry.get_sample_value("portfolio_streams_refused") == 0
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "new streams are refused: 2 are open, which is the limit of this task"),
        ("INFO", "new streams are accepted again: no memory limit is known; 0 streams are open"),
    ]


def test_the_metric_is_1_only_while_a_stream_would_be_refused_or_if_one_was_refused_since_the_last_reading() -> None:
    registry = CollectorRegistry()
    admission = StreamAdmission(lambda: None, HttpMetrics(registry), 100)

    def shown() -> float | None:
        admission.look()
        return registry.get_sample_value("portfolio_streams_refused")

    with ExitStack() as most:
        for _ in range(99):
            most.enter_context(admission.admitted())
        assert shown() == 0
        with admission.admitted():
            assert shown() == 1
            with pytest.raises(NoNewStream), admission.admitted():
                pass
        assert [shown(), shown()] == [1, 0], "99 of 100 streams are open"
        with admission.admitted():
            pass


def test_streams_are_accepted_again_only_when_no_cause_is_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service.api.stream_admission")
    memory = MemoryUse(100, 1000)
    admission = StreamAdmission(lambda: memory, HttpMetrics(CollectorRegistry()), 1)
    with admission.admitted():
        with pytest.raises(NoNewStream), admission.admitted():
            pass
        memory = MemoryUse(900, 1000)
        admission.look()
    admission.look()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"], "memory is still short"
    memory = MemoryUse(100, 1000)
    admission.look()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]


async def test_an_invalid_request_gets_its_own_error_while_memory_is_short(served: Served) -> None:
    served.memory = MemoryUse(900, 1000)
    served.admission.look()
    assert (await served.get("/portfolios/nonsense/stream"))[0] == 400
    assert (await served.get("/portfolios/00000000-0000-4000-8000-000000000000/stream"))[0] == 404


async def _event(stream: aiohttp.ClientResponse) -> None:
    async with asyncio.timeout(20):
        while not (await stream.content.readline()).startswith(b"data:"):
            pass


SCATTERED = """
import os
from pathlib import Path
from service.api.stream_admission import return_free_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

kept = [bytes(1000) for _ in range(50_000)]
last = bytes(1000)  # at the highest address, so that the memory below it is not returned automatically
del kept
before = resident()
return_free_memory()
print(before, resident())
"""


def test_the_images_allocator_returns_freed_memory_to_the_system() -> None:
    dockerfile = (Path(__file__).parents[3] / "Dockerfile.api").read_text()
    (allocator,) = re.findall(r"PYTHONMALLOC=(\w+) ", dockerfile)
    said = subprocess.run(
        [sys.executable, "-c", SCATTERED],
        env=os.environ | {"PYTHONMALLOC": allocator},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    before, after = map(int, said.split())
    assert before - after > 40_000_000, "50,000 objects of 1,000 bytes were freed"


async def test_free_memory_is_returned_only_while_streams_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    returned, read, shares = 0, 0, [0.5] * 20 + [0.9] * 20

    def read_next() -> MemoryUse:
        nonlocal read
        read += 1
        assert read > 20 or not returned
        return MemoryUse(round(1000 * (shares[read - 1] if read <= len(shares) else 0.9)), 1000)

    def count() -> None:
        nonlocal returned
        returned += 1

    monkeypatch.setattr(stream_admission, "INTERVAL", 0.0)
    monkeypatch.setattr(stream_admission, "return_free_memory", count)
    watching = asyncio.create_task(StreamAdmission(read_next, HttpMetrics(CollectorRegistry()), 1).run())
    await eventually(lambda: read >= 20 + 3 * stream_admission.TRIM_EVERY or watching.done())
    watching.cancel()
    await asyncio.wait((watching,))
    assert watching.cancelled()
    assert 2 <= returned <= read // stream_admission.TRIM_EVERY
