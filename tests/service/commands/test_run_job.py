"""Jobs that are run by hand, with the fence and without an election."""

import asyncio
import os
import pty
import select
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from service.commands import run_job as by_hand
from service.commands.run_job import RunArguments, parse
from service.database.connection import Connection, StaleTerm
from service.database.store import Store
from service.market.calendar import NyseCalendar
from service.prices import PricesUnavailable
from service.prices.simulated import SimulatedPrices
from service.settings import Settings, SettingsError, read_settings
from service.work.jobs import Jobs
from service.work.scheduler import Scheduler
from tests.service.work.test_protection import OFF, ON, Agent
from tests.support.positions import entry
from tests.support.processes import clean_environment
from tests.support.waiting import eventually
from tests.support.work_fakes import FakeTerm, FakeTermOver, ScriptedPrices

FRIDAY, MONDAY = date(2026, 2, 27), date(2026, 3, 2)
NOW = datetime(2026, 3, 3, 15, tzinfo=UTC)
LEASE = "daily_scheduler"


@pytest.fixture
def settings(migrated: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("DATABASE_URL", migrated)
    monkeypatch.setenv("AUTH", "off")
    monkeypatch.setenv("PRICE_SOURCE", "simulated")
    return read_settings()


@pytest.fixture
def closes(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The closes that the source returns for every day."""
    offered = {"A": "10"}

    async def answer(_: date) -> Mapping[str, str]:
        return offered

    monkeypatch.setattr(by_hand, "price_source", lambda *_: ScriptedPrices(closes=answer))
    return offered


@pytest.fixture(autouse=True)
async def portfolios(store: Store) -> None:
    await store.put_positions([entry(n, "A", str(n)) for n in (1, 2)])


async def run(settings: Settings, *options: str, now: datetime = NOW) -> None:
    await by_hand.run(parse(options), settings, lambda: now)


async def rows(raw: Connection) -> list[tuple[Any, ...]]:
    found = await raw.fetch("select date, value, origin, revision from portfolio_history order by date, portfolio_id")
    return [tuple(row) for row in found]


async def test_without_a_date_the_job_runs_for_the_last_session_that_is_over(
    settings: Settings, closes: dict[str, str], raw: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    await run(settings, "eod")
    assert [(day, value) for day, value, *_ in await rows(raw)] == [(MONDAY, Decimal(10)), (MONDAY, Decimal(20))]
    assert capsys.readouterr().out == "eod of 2026-03-02: 2 rows written\n"


async def test_a_range_runs_exactly_the_sessions_in_it(
    settings: Settings, closes: dict[str, str], raw: Connection
) -> None:
    await run(settings, "reconstruct", "--from", "2026-02-26", "--to", "2026-03-01")
    assert {day for day, *_ in await rows(raw)} == {date(2026, 2, 26), FRIDAY}


async def test_a_finished_run_is_repeated_by_hand_and_writes_only_differences(
    settings: Settings, closes: dict[str, str], raw: Connection, store: Store
) -> None:
    await run(settings, "snapshot", "--date", "2026-03-02")
    before = await rows(raw)
    await run(settings, "snapshot", "--date", "2026-03-02")
    assert await rows(raw) == before
    closes["A"] = "11"
    await run(settings, "snapshot", "--date", "2026-03-02")
    assert [(value, revision) for _, value, _, revision in await rows(raw)] == [(11, 2), (22, 2)]
    done = (await store.job_runs())["snapshot"]
    assert (done.status, done.attempts, done.rows_written) == ("done", 3, 2)


async def test_a_repetition_without_prices_leaves_the_run_finished_and_records_the_reason(
    settings: Settings, raw: Connection, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a settled session would count as unsettled."""
    is_down = False

    async def answer(_: date) -> Mapping[str, str]:
        if is_down:
            raise PricesUnavailable("down")
        return {"A": "10"}

    monkeypatch.setattr(by_hand, "price_source", lambda *_: ScriptedPrices(closes=answer))
    await run(settings, "snapshot", "--date", "2026-03-02")
    before, finished = await rows(raw), (await store.job_runs())["snapshot"].finished_at
    is_down = True
    for _ in range(2):
        with pytest.raises(PricesUnavailable):
            await run(settings, "snapshot", "--date", "2026-03-02")
    failed = (await store.job_runs())["snapshot"]
    assert (await rows(raw), failed.finished_at) == (before, finished)
    assert (failed.status, failed.attempts, failed.rows_written, failed.error) == ("done", 3, 2, "2026-03-02: down")
    is_down = False
    await run(settings, "snapshot", "--date", "2026-03-02")
    repeated = (await store.job_runs())["snapshot"]
    assert (repeated.status, repeated.rows_written, repeated.error) == ("done", 0, None)


async def test_an_interrupted_run_by_hand_begins_again_and_corrects_every_row(
    settings: Settings, raw: Connection, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators import missing closes and then run the snapshot, as the runbooks describe."""

    async def closes(_: date) -> Mapping[str, str]:
        return {"A": "10"}

    def stop(*_: object) -> None:
        raise FakeTermOver

    prices = ScriptedPrices(closes=closes)
    monkeypatch.setattr(by_hand, "price_source", lambda *_: prices)
    monkeypatch.setattr(by_hand, "Jobs", partial(Jobs, chunk=1))
    with monkeypatch.context() as patch, pytest.raises(FakeTermOver):
        patch.setattr(by_hand, "_show", stop)
        await run(settings, "snapshot", "--date", "2026-03-02")
    assert [value for _, value, *_ in await rows(raw)] == [10]
    await raw.execute("update price_eod set close = 50, token = null")  # an import
    await run(settings, "snapshot", "--date", "2026-03-02")
    assert [value for _, value, *_ in await rows(raw)] == [50, 100]
    done = (await store.job_runs())["snapshot"]
    assert (done.status, done.rows_written, done.rows_added, done.rows_changed) == ("done", 2, 1, 1)


async def test_a_dry_run_claims_no_fence_and_writes_nothing(
    settings: Settings, raw: Connection, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    await run(settings, "eod", "--dry-run")
    assert "would value 2 portfolios; 0 of 1 symbols have that day's close" in capsys.readouterr().out
    assert (await rows(raw), await store.fences(), await store.job_runs()) == ([], {}, {})


async def test_a_dry_run_of_a_finished_job_reports_it(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    await run(settings, "eod")
    capsys.readouterr()
    await run(settings, "eod", "--dry-run")
    assert capsys.readouterr().out.endswith("would write nothing: every portfolio with positions has a row\n")


@pytest.mark.parametrize("job", ["eod", "snapshot", "reconstruction"])
async def test_a_dry_run_without_any_positions_reports_that_there_are_none(
    settings: Settings, raw: Connection, capsys: pytest.CaptureFixture[str], job: str
) -> None:
    await raw.execute("delete from position")
    await run(settings, job, "--dry-run", "--date", "2026-03-02")
    assert capsys.readouterr().out == f"{job} of 2026-03-02 would write nothing: no portfolio had positions\n"


@pytest.mark.parametrize(
    "options",
    [("eod",), ("snapshot",), ("reconstruct",), ("reconstruct", "--from", "2026-02-26", "--to", "2026-03-01")],
)
async def test_a_dry_run_names_each_session_that_the_run_would_write(
    settings: Settings,
    closes: dict[str, str],
    raw: Connection,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
) -> None:
    await run(settings, *options, "--dry-run")
    output = [line.split()[2] for line in capsys.readouterr().out.splitlines()]
    await run(settings, *options)
    assert output == sorted({str(day) for day, *_ in await rows(raw)})
    assert len(output) == {"eod": 1, "snapshot": 1}.get(options[0], 7 if len(options) == 1 else 2)


async def test_a_session_without_prices_delays_no_other_of_the_range(
    settings: Settings, raw: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(day: date) -> Mapping[str, str]:
        if day == FRIDAY:
            raise PricesUnavailable("not today")
        return {"A": "10"}

    monkeypatch.setattr(by_hand, "price_source", lambda *_: ScriptedPrices(closes=answer))
    with pytest.raises(PricesUnavailable, match=r"^2026-02-27: not today$"):
        await run(settings, "eod", "--from", "2026-02-26", "--to", "2026-03-02")
    assert {day for day, *_ in await rows(raw)} == {date(2026, 2, 26), MONDAY}


async def test_the_task_is_protected_for_the_length_of_the_run(
    settings: Settings, raw: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Agent().serving() as agent:

        async def answer(_: date) -> Mapping[str, str]:
            await eventually(lambda: agent.protected)
            return {"A": "10"}

        monkeypatch.setattr(by_hand, "price_source", lambda *_: ScriptedPrices(closes=answer))
        await run(settings.model_copy(update={"ecs_agent_uri": agent.uri}), "eod")
        assert agent.put == [ON, OFF]
    assert len(await rows(raw)) == 2


async def test_a_run_by_hand_fences_off_the_leader_and_not_the_next_term(
    settings: Settings, closes: dict[str, str], store: Store
) -> None:
    microseconds = 1_790_000_000_000_000
    await store.claim_fence(FakeTerm(microseconds, "leader", LEASE))
    await run(settings, "eod")
    with pytest.raises(StaleTerm):
        async with store.fenced(FakeTerm(microseconds, "leader", LEASE)):
            pass
    fence = (await store.fences())[LEASE]
    assert fence.token == microseconds + 1
    assert fence.holder.startswith("by-hand:")
    await store.claim_fence(FakeTerm(microseconds + 10_000_000, "leader", LEASE))


async def test_a_leader_that_claims_the_fence_ends_the_run_by_hand_and_continues_it(
    settings: Settings, store: Store, raw: Connection, monkeypatch: pytest.MonkeyPatch, metrics: Any
) -> None:
    async def lose(_: date) -> Mapping[str, str]:
        await store.claim_fence(FakeTerm(10**15, "leader", LEASE))
        return {"A": "10"}

    prices = ScriptedPrices(closes=lose)
    monkeypatch.setattr(by_hand, "price_source", lambda *_: prices)
    with pytest.raises(StaleTerm):
        await run(settings, "eod")
    assert await rows(raw) == []
    assert (await store.job_runs())["eod"].status == "running"
    scheduler = Scheduler(store, prices, NyseCalendar(), metrics, look_back=1, now=lambda: NOW)
    await scheduler._run_due(by_hand.ManualTerm(10**15, "leader"))
    assert [value for _, value, *_ in await rows(raw)] == [10, 20]
    assert (await store.job_runs())["eod"].status == "done"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--date", "2026-03-01"), "no session on 2026-03-01 in the calendar NYSE"),
        (("--from", "2026-02-28", "--to", "2026-03-01"), "no session from 2026-02-28 to 2026-03-01"),
        (("--date", "2026-03-03"), "the session of 2026-03-03 is not over"),
        (("--from", "2026-03-02", "--to", "2027-01-01"), "is not over; the last session was on 2026-03-02"),
    ],
)
async def test_a_date_without_a_finished_session_is_an_error(
    settings: Settings, options: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(SettingsError, match=expected):
        await run(settings, "eod", *options)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("weekly",),
        ("eod", "--date", "today"),
        ("eod", "--date", "20260302"),
        ("eod", "--date", "2026-W10-1"),
        ("eod", "--date", "0001-01-01"),
        ("eod", "--date", "9999-12-31"),
        ("eod", "--from", "0001-01-01", "--to", "2026-03-02"),
        ("eod", "--from", "2026-03-02"),
        ("eod", "--from", "2026-03-02", "--to", "2026-03-01"),
        ("eod", "--date", "2026-03-02", "--to", "2026-03-02"),
    ],
)
def test_invalid_arguments_of_run_are_status_two(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(options)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_arguments_of_run_are_parsed() -> None:
    assert parse(["snapshot"]) == RunArguments("snapshot", None, None, dry_run=False)
    assert parse(["eod", "--date", "2026-03-02"]) == RunArguments("eod", MONDAY, MONDAY, dry_run=False)
    assert parse(["reconstruct", "--from", "2026-02-27", "--to", "2026-03-02", "--dry-run"]) == RunArguments(
        "reconstruction", FRIDAY, MONDAY, dry_run=True
    )


@pytest.mark.parametrize("name", ["reconstruction", "reconstruct"])
def test_reconstruction_also_has_a_short_name(name: str) -> None:
    assert parse([name]).job == "reconstruction"


async def test_a_run_by_hand_can_use_the_simulated_source(settings: Settings, raw: Connection) -> None:
    await run(settings, "snapshot")
    symbol = (await raw.fetchrow("select close from price_eod where symbol = 'A'"))["close"]  # type: ignore[index]
    simulated = SimulatedPrices(settings.price_seed, NyseCalendar(), lambda: NOW)
    assert symbol == (await simulated.closes(["A"], MONDAY))["A"].price
    assert UUID(int=1) in {row[0] for row in await raw.fetch("select portfolio_id from portfolio_history")}


async def command(*options: str, stderr: int = asyncio.subprocess.PIPE, **settings: str) -> tuple[int, str, str]:
    """Run `python -m service run ...` as a process. Return its status, its output and, if piped, its error output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "run", *options),
        env=clean_environment(**{"AUTH": "off", "PRICE_SOURCE": "simulated", "LOG_LEVEL": "error"} | settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), (err or b"").decode()


async def test_a_command_that_succeeds_is_status_zero_and_shows_no_bar_without_a_terminal(
    migrated: str, raw: Connection
) -> None:
    done = await command("reconstruct", "--from", "2026-02-27", "--to", "2026-03-02", DATABASE_URL=migrated)
    expected = "".join(f"reconstruction of {day}: 2 rows written\n" for day in (FRIDAY, MONDAY))
    assert done == (0, expected, "")
    assert len(await rows(raw)) == 4


async def test_on_a_terminal_the_command_shows_its_progress(migrated: str) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    shown = b""
    try:
        status, out, _ = await command("eod", "--date", "2026-03-02", stderr=theirs, DATABASE_URL=migrated)
        while select.select([ours], [], [], 0)[0]:
            shown += os.read(ours, 10_000)  # a read may end within a character
    finally:
        os.close(ours)
        os.close(theirs)
    assert (status, out) == (0, "eod of 2026-03-02: 2 rows written\n")
    assert "eod 2026-03-02: 100%" in shown.decode()
    assert "2.00/2.00" in shown.decode()


@asynccontextmanager
async def refusing_server() -> AsyncIterator[str]:
    """The address of a price server that refuses every key."""

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"message": "forbidden."}, status=403)

    app = web.Application()
    app.router.add_get("/{path:.*}", refuse)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_command_that_fails_is_status_one_with_the_reason_in_one_line(migrated: str) -> None:
    async with refusing_server() as url:
        status, out, err = await command(
            *("eod", "--date", "2026-03-02"),
            DATABASE_URL=migrated,
            PRICE_SOURCE="alpaca",
            APCA_API_KEY_ID="key",
            APCA_API_SECRET_KEY="secret",
            ALPACA_DATA_URL=url,
        )
    assert (status, out) == (1, "")
    assert err.startswith("2026-03-02: Alpaca")
    assert len(err.splitlines()) == 1
    status, out, err = await command("eod", DATABASE_URL="postgresql://postgres:secret@127.0.0.1:1/nowhere")
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert "secret" not in err


async def test_an_invalid_command_is_one_line_and_status_two(migrated: str) -> None:
    for options in (("weekly",), ("eod", "--date", "2026-03-01")):
        status, out, err = await command(*options, DATABASE_URL=migrated)
        assert (status, out) == (2, "")
        assert "Traceback" not in err
    assert (await command("eod", DATABASE_URL="nonsense"))[0] == 2
