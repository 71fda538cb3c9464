"""`python -m service healthcheck` is quick, correct, and silent on standard error."""

import asyncio
import json
import sys

import pytest
from aiohttp import web

from ops.local.servers import free_port
from tests.support.processes import ROOT, clean_environment


async def run(bind: str, *, flags: tuple[str, ...] = ()) -> tuple[int | None, str, str]:
    """Run the health check, and return its exit status, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *flags, "-m", "service", "healthcheck"),
        cwd=ROOT,
        env=clean_environment(API_BIND=bind),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1), (404, 1)])
async def test_the_check_reports_the_status_line_of_healthz(status: int, exit_status: int) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(status=status if request.path == "/healthz" else 418)

    port = free_port()
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        returned, out, err = await run(f"0.0.0.0:{port}")
    finally:
        await runner.cleanup()
    assert (returned, err) == (exit_status, "")
    assert str(status) in out


@pytest.mark.parametrize(
    "bind", [f"127.0.0.1:{free_port()}", "nonsense", "127.0.0.1:0"], ids=["free", "no address", "no port"]
)
async def test_no_listener_or_an_invalid_address_is_unhealthy_with_empty_stderr(bind: str) -> None:
    returned, out, err = await run(bind)
    assert (returned, err) == (1, "")
    assert out.count("\n") == 1


async def test_another_program_on_the_port_is_unhealthy() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 smtp 200 ready\r\n")
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        returned, _, err = await run(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert (returned, err) == (1, "")


async def test_the_check_imports_only_modules_that_load_quickly() -> None:
    _, _, err = await run(f"127.0.0.1:{free_port()}", flags=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip() for line in err.splitlines()}
    assert "service.healthcheck" in imported
    slow = {"aiohttp", "asyncio", "asyncpg", "holidays", "http.client", "logging", "pydantic", "uvloop"}
    assert not imported & slow, json.dumps(sorted(imported & slow))
