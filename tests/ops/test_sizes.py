"""The parts of `make sizes` that need no containers: the table, the options and the streams."""

import asyncio

import pytest
from aiohttp import web

from ops.sizes.__main__ import _options
from ops.sizes.measure import Load, Size
from ops.sizes.streams import OpenStreams, Refused
from ops.sizes.table import needed, smallest_task, table
from tests.support.listening import listening
from tests.support.waiting import eventually


def size(portfolios: int, *, jobs: float, streams: float) -> Size:
    sidecar = Load(40.0, 1.0)
    return Size(
        portfolios,
        streams=1000,
        first_tick=30.0,
        tick=0.25,
        eod=1.5,
        beginning={"api": Load(jobs, 20.0), "sidecar": sidecar},
        steady={"api": Load(100.0, 2.0), "sidecar": sidecar},
        streaming={"api": Load(streams, 5.0), "sidecar": sidecar},
    )


def test_the_api_has_enough_memory_to_refuse_no_stream_at_its_maximum_use() -> None:
    assert needed(size(1, jobs=100, streams=544)) == 640, "544 of 640 are 85 %"
    assert needed(size(1, jobs=545, streams=100)) == 704


@pytest.mark.parametrize(("api", "task"), [(896, 1024), (897, 2048), (3968, 4096), (3969, None)])
def test_the_smallest_task_has_room_for_both_containers(api: int, task: int | None) -> None:
    assert smallest_task(api, 128, 512) == task


def test_the_table_has_a_row_for_each_number_of_portfolios() -> None:
    lines = table([size(1, jobs=100, streams=120), size(1_000_000, jobs=9000, streams=9000)], 512).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| 1 | 30 s | 0.25 s | 1.5 s | 100 MiB |")
    assert lines[2].endswith("| 192 MiB | 1024 MiB |")
    assert lines[3].endswith("| more than Fargate has |")


@pytest.mark.parametrize(
    "arguments", [["--portfolios", "0"], ["--portfolios", "1 many"], ["--streams", "-1"], ["--cpu", "500"]]
)
def test_an_invalid_option_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _options(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err.splitlines()[-1]


def test_the_numbers_of_portfolios_are_one_option() -> None:
    assert _options(["--portfolios", "1 10000"]).portfolios == [1, 10_000]


async def test_streams_are_counted_until_they_end_and_a_refused_stream_is_reported() -> None:
    more = asyncio.Event()
    opened = 0

    async def stream(request: web.Request) -> web.StreamResponse:
        nonlocal opened
        opened += 1
        if opened > 2:
            return web.Response(status=503, headers={"Retry-After": "5"})
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await more.wait()
        return response

    app = web.Application()
    app.router.add_get("/portfolios/{id}/stream", stream)
    async with listening(web.AppRunner(app, shutdown_timeout=1)) as url, OpenStreams(url, ["a", "b"]) as streams:
        assert [await streams.open(), await streams.open()] == [None, None]
        assert await streams.open() == Refused(503, "5")
        await eventually(lambda: streams.events == 2)
        assert len(streams) == 2
        more.set()
        await eventually(lambda: len(streams) == 0)
        assert streams.ended == 2
