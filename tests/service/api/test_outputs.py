"""Text from outside is bounded and escaped in every output of the API container."""

import asyncio
import json
import logging
import socket
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from pydantic import SecretStr

from service.clock import utc_now
from service.commands.csv_file import BadFile
from service.commands.import_csv import import_positions, import_prices, parse
from service.database.connection import StoreError, store_errors
from service.healthcheck import check
from service.market.calendar import CALENDARS
from service.prices import PricesUnavailable
from service.prices.alpaca_client import AlpacaClient, Credentials
from service.telemetry import set_up_logs
from tests.support.outputs import flush_log
from tests.support.processes import command_of
from tests.support.served_api import Served

HOSTILE = "x\x1b[2J\x1b]0;title\x07\r\n2026-01-01T00:00:00.000Z ERROR forged\u2028\u202e" + "y" * 100_000
LARGEST = 2_000
"""Limit of the length of an output with a hostile text, in characters."""


def is_harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n")) and "\nforged" not in text and len(text) < LARGEST


async def test_a_database_error_is_one_bounded_line(shared_url: str, stack: AsyncExitStack) -> None:
    connection = await asyncpg.connect(shared_url)
    stack.push_async_callback(connection.close)
    with pytest.raises(StoreError) as caught, store_errors():
        await connection.execute("select cast($1::text as integer)", HOSTILE.replace("\0", ""))
    assert r"x\x1b[2J" in str(caught.value)
    assert is_harmless(str(caught.value))


async def test_background_status_bounds_the_texts_of_another_task(served: Served, shared_url: str) -> None:
    admin = await asyncpg.connect(shared_url)
    try:
        await admin.execute("insert into lease_fence values ('background_services', 1, $1)", HOSTILE)
        await admin.execute(
            "insert into job_run (job, session_date, status, holder, token, error) "
            "values ('eod', '2026-02-12', 'running', $1, 1, $1) on conflict do nothing",
            HOSTILE,
        )
        async with served.session.get(f"{served.internal_url}/background/status") as answer:
            text = await answer.text()
        status = json.loads(text)
        assert len(text) < 2 * LARGEST
        run = status["jobs"]["eod"]["last_run"]
        texts = [status["leases"]["background_services"]["last_writer"]["holder"], run["error"], run["holder"]]
        texts += [problem["text"] for problem in status["problems"]]
        assert "The job eod of 2026-02-12 fails" in str(texts)
        assert all(map(is_harmless, texts))
    finally:
        await admin.execute("delete from job_run")
        await admin.close()


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_text_can_forge_a_log_line(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        set_up_logs("json" if form == "json" else "text", "info")
        logging.getLogger("service.some").warning("refused: %s", HOSTILE, extra={"holder": HOSTILE})
        flush_log()
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:], root.level = before
    (line,) = capfd.readouterr().out.removesuffix("\n").split("\n")
    assert line.isprintable()
    assert len(line) < 10_000


@pytest.mark.parametrize("what", ["header", "symbol", "name"])
async def test_a_file_s_content_and_name_are_harmless_in_an_error(tmp_path: Path, samples_url: str, what: str) -> None:
    path = tmp_path / ("a\x1b[2J\nb.csv" if what == "name" else "some.csv")
    evil = "\x1b[2J" + "z" * 900
    more = f",{evil}" if what == "header" else ""
    path.write_text(f"symbol,session_date,close{more}\n{evil},2026-03-02,1\n")
    with pytest.raises(BadFile) as caught:
        await import_prices(samples_url, path, CALENDARS["NYSE"](), utc_now())
    assert r"\x1b[2J" in str(caught.value)
    assert is_harmless(str(caught.value))
    with pytest.raises(BadFile) as caught:
        await import_positions(samples_url, path / "not there")
    assert is_harmless(str(caught.value))


@pytest.mark.parametrize("command", [["import"], ["run"], ["fence"], ["token", "--user"], []])
async def test_a_hostile_command_line_is_repeated_harmlessly(
    tmp_path: Path, stack: AsyncExitStack, command: list[str]
) -> None:
    process = await stack.enter_async_context(command_of("service", tmp_path / "log", *command, HOSTILE[:20_000]))
    assert await process.end() == 2
    assert is_harmless(process.output)


async def test_a_file_s_error_on_the_terminal_is_harmless(
    tmp_path: Path, stack: AsyncExitStack, samples_url: str
) -> None:
    settings = {"DATABASE_URL": samples_url, "AUTH": "off", "PRICE_SOURCE": "simulated"}
    name = str(tmp_path / "no\x1b[2J\nfile")
    process = await stack.enter_async_context(
        command_of("service", tmp_path / "log", "import", "prices", name, **settings)
    )
    assert await process.end() == 2
    assert r"no\x1b[2J\nfile" in process.output
    assert is_harmless(process.output)
    assert parse(["prices", name]).path == Path(name)


def test_the_health_check_prints_no_escape_sequence_of_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("API_BIND", f"127.0.0.1:{listener.getsockname()[1]}")

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 \x1b[2J\x9b\r\n\r\n")
                connection.recv(1024)

        answering = threading.Thread(target=answer)
        answering.start()
        well, said = check()
        answering.join()
    assert well
    assert said == r"HTTP/1.1 200 \x1b[2J\x9b"


async def test_a_price_sources_message_is_harmless_and_even_a_cut_key_is_hidden(stack: AsyncExitStack) -> None:
    key = "SECRET" * 6

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"message": "w" * 190 + key + HOSTILE}, status=422)

    app = web.Application()
    app.router.add_get("/x", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    client = AlpacaClient(f"http://127.0.0.1:{port}", Credentials(SecretStr(key), SecretStr("other")))
    stack.push_async_callback(client.aclose)
    with pytest.raises(PricesUnavailable) as caught:
        await client.get("/x", {}, client.budget(5))
    assert is_harmless(str(caught.value))
    assert "SECRET" not in str(caught.value)


async def test_errors_over_http_are_bounded(served: Served, session: aiohttp.ClientSession) -> None:
    reader, writer = await asyncio.open_connection(*served.url.removeprefix("http://").split(":"))
    writer.write(b"M" * 4000 + b" /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = (await reader.read()).decode()
    writer.close()
    assert " 4" in answer.splitlines()[0]
    assert len(answer) < LARGEST
    async with session.get(f"{served.url}/portfolios/{'%1B' * 1000}/live") as response:
        assert response.status == 400
        assert len(await response.text()) < LARGEST
