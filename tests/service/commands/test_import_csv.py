"""Imports of CSV files, and the errors of invalid files."""

import asyncio
import gzip
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest

from service.__main__ import main
from service.commands import import_csv as imports
from service.commands.csv_file import BadFile
from service.commands.import_csv import import_positions, import_prices
from service.database.connection import END_IF_IDLE, Connection, StoreError
from service.database.store import Store
from service.market.calendar import NyseCalendar
from service.portfolio.records import Quote
from service.prices import Price
from tests.support.positions import USER, entry, held, somebody_waits_for_a_lock
from tests.support.proxy import Proxy
from tests.support.waiting import eventually
from tests.support.work_fakes import FakeTerm

NYSE = NyseCalendar()
NOW = datetime(2026, 3, 3, 17, tzinfo=UTC)
MONDAY = date(2026, 3, 2)
ONE, OTHER = UUID(int=1), UUID(int=0xB)
POSITIONS = "portfolio_id,user_id,symbol,quantity,valid_from\n"
PRICES = "symbol,session_date,close\n"
GOOD = f"{ONE},{USER},KO,10.5,2026-03-02\n"


def file(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


async def counts(raw: Connection) -> tuple[int, int, int]:
    row = await raw.fetchrow(
        "select (select count(*) from portfolio), (select count(*) from position), (select count(*) from price_eod)"
    )
    assert row is not None
    return row[0], row[1], row[2]


@pytest.mark.parametrize(
    "text",
    [
        POSITIONS + GOOD + f"{ONE},{USER},PG,3,2026-03-02\n",
        "﻿" + (POSITIONS + GOOD + f"{ONE},{USER},PG,3.00000000,2026-03-02").replace("\n", "\r\n"),
        f"valid_from, symbol ,quantity,user_id,portfolio_id\n\n2026-03-02,KO,10.5,{USER},{ONE}\n"
        f'2026-03-02,"PG", 3 ,{USER},{ONE}\n\n',
        POSITIONS.replace("\n", ",,\n")
        + GOOD.replace("\n", ",,\n")
        + f"{ONE},{USER},PG,3,2026-03-02\n, , ,,\n,,,,,,\n \n",
        "sep=,\r\n" + (POSITIONS + GOOD + f"{ONE},{USER},PG,3,2026-03-02\n").replace("\n", "\r\n"),
        '"SEP=,"\n' + POSITIONS + GOOD + f"{ONE},{USER},PG,3,2026-03-02\n",
        (POSITIONS + GOOD + f"{ONE},{USER},PG,3,2026-03-02\n").replace("\n", "\r"),
    ],
)
@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress])
async def test_every_form_of_the_file_is_loaded_and_a_second_import_changes_nothing(
    migrated: str, store: Store, tmp_path: Path, text: str, pack: "type[bytes]"
) -> None:
    path = file(tmp_path, pack(text.encode()))
    assert await import_positions(migrated, path) == "2 lines: 1 new portfolios, 2 new or changed positions"
    assert await import_positions(migrated, path) == "2 lines: 0 new portfolios, 0 new or changed positions"
    assert await held(store, MONDAY) == {ONE: (("KO", Decimal("10.5")), ("PG", Decimal(3)))}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "line 1: the file is empty; the header must be portfolio_id,user_id,symbol,quantity,valid_from"),
        ("\n", "line 1: the header must be portfolio_id,user_id,symbol,quantity,valid_from, but it is ''"),
        (POSITIONS.upper() + GOOD, "but it is 'PORTFOLIO_ID,USER_ID,SYMBOL,QUANTITY,VALID_FROM'"),
        ((POSITIONS + GOOD).replace(",", ";"), "the separator seems to be ';', but it must be a comma"),
        ((POSITIONS + GOOD).replace(",", "\t"), "the separator seems to be a tab, but it must be a comma"),
        ("sep=;\n" + (POSITIONS + GOOD).replace(",", ";"), "the separator seems to be ';', but it must be a comma"),
        ("sep=\t\n" + (POSITIONS + GOOD).replace(",", "\t"), "the separator seems to be a tab, but it must be a comma"),
        ("portfolio_id,user_id,symbol,quantity\n", "line 1, valid_from: the column is missing"),
        (POSITIONS.strip() + ",note\n", "line 1, 'note': unknown column"),
        (POSITIONS.strip() + ",symbol\n", "line 1, 'symbol': given twice"),
        (POSITIONS + GOOD + "one,two\n", "line 3: 2 fields where the header has 5"),
        (POSITIONS + GOOD + f"1,{USER},KO,1,2026-03-02\n", "line 3, portfolio_id: '1' is not a UUID"),
        (POSITIONS + f"{ONE},me,KO,1,2026-03-02\n", "line 2, user_id: 'me' is not a UUID"),
        (POSITIONS + f"{ONE},{USER},,1,2026-03-02\n", "line 2, symbol: '' is not a symbol"),
        (POSITIONS + f"{ONE},{USER},K O,1,2026-03-02\n", "line 2, symbol: 'K O' is not a symbol"),
        *(
            (POSITIONS + f"{ONE},{USER},KO,{quantity},2026-03-02\n", f"line 2, quantity: '{quantity}' is {problem}")
            for quantity, problem in {
                "": "not a decimal",
                "NaN": "not a decimal",
                "-1": "not a decimal",
                "1e3": "not a decimal",
                "inf": "not a decimal",
                "0.123456789": "too precise",
                "10000000000": "too large",
            }.items()
        ),
        *(
            (POSITIONS + f"{ONE},{USER},KO,1,{day}\n", f"line 2, valid_from: '{day}' is not a date")
            for day in ("", "today", "2026-02-30", "02/03/2026", "0001-01-01", "20260302")
        ),
        (POSITIONS + GOOD + GOOD, "line 3, portfolio_id, symbol, valid_from: the same as in line 2"),
        (POSITIONS + GOOD + f"{ONE},{OTHER},PG,1,2026-03-02\n", "line 3, user_id: the portfolio is another user's"),
        (POSITIONS + GOOD + f'{ONE},{USER},"KO,1,2026-03-02\n', "line 3, symbol: a quote opens here"),
        (POSITIONS + GOOD + f'{ONE},{USER},"KO,1,2026-03-02\n' + GOOD, "line 3, symbol: a quote opens here"),
        (POSITIONS + GOOD + f'{ONE},{USER},"KO,1,2026-03-02\n' + GOOD * 100, "line 3, symbol: a quote opens here"),
        (POSITIONS + GOOD + f'{ONE},{USER},"K\nO",1,2026-03-02\n', "line 3, symbol: a quote opens here"),
        (POSITIONS + GOOD + f'{ONE},{USER},KO,1,"\n', "line 3, valid_from: a quote opens here"),
        ('"' + POSITIONS + GOOD, "line 1: a quote opens here"),
        (POSITIONS + GOOD + f'{ONE},{USER},"K"O,1,2026-03-02\n', "line 3: not CSV"),
        (POSITIONS + GOOD + "x" * 2000 + "\n", "line 3: not CSV"),
        (POSITIONS + GOOD + "\0\n", "line 3: 1 fields where the header has 5"),
        (POSITIONS + GOOD.replace("\n", ",\n"), "line 2: 6 fields where the header has 5"),
        ("\ufeff", "line 1: the file is empty"),
        ((POSITIONS + GOOD).encode() + b"\xff\xfe\n", "line 3: a byte is not UTF-8"),
        ((POSITIONS + GOOD).encode("utf-16"), "line 1: the file is UTF-16; a CSV file in UTF-8 is needed"),
        ((POSITIONS + GOOD).encode() + b'"\n\xc4"\n', "line 3, portfolio_id: a quote opens here"),
        ((POSITIONS + GOOD).encode("utf-16-be"), "line 1: the header must be"),
        (b"PK\x03\x04", "line 1: the file is a spreadsheet or a zip archive"),
        (gzip.compress(gzip.compress(POSITIONS.encode(), mtime=0), mtime=0), "line 1: the file is gzipped twice"),
        (gzip.compress((POSITIONS + GOOD * 1000).encode(), mtime=0)[:-20], "the gzip file is damaged or cut off"),
        (gzip.compress((POSITIONS + GOOD).encode(), mtime=0)[:-8] + bytes(8), "the gzip file is damaged or cut off"),
    ],
)
async def test_invalid_positions_are_an_error_with_line_and_column_and_load_nothing(
    migrated: str, raw: Connection, tmp_path: Path, text: str | bytes, where: str
) -> None:
    with pytest.raises(BadFile) as caught:
        await import_positions(migrated, file(tmp_path, text))
    assert str(caught.value).startswith("file.csv, line ")
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)
    assert await counts(raw) == (0, 0, 0)


async def test_an_error_repeats_only_the_beginning_of_a_long_value(migrated: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile) as caught:
        await import_positions(migrated, file(tmp_path, POSITIONS + GOOD.replace("KO", "K" * 900)))
    assert str(caught.value).startswith(f"file.csv, line 2, symbol: '{'K' * 60}'... is not a symbol")


async def test_an_interrupted_import_ends_within_its_file_and_keeps_nothing(
    migrated: str, raw: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{ONE},{USER},S{number},1,2026-03-02\n" for number in range(3 * imports.LINES_PER_TURN)]
    path = file(tmp_path, POSITIONS + "".join(lines))
    read = []

    def symbol(text: str) -> str:
        read.append(text)
        if len(read) == 10:
            importing.cancel()  # as the event loop does on Ctrl-C
        return text

    monkeypatch.setattr(imports, "read_symbol", symbol)
    importing = asyncio.create_task(import_positions(migrated, path))
    with pytest.raises(asyncio.CancelledError):
        await importing
    assert 10 <= len(read) <= imports.LINES_PER_TURN
    assert await counts(raw) == (0, 0, 0)


async def test_an_import_does_not_give_a_portfolio_to_another_user(migrated: str, store: Store, tmp_path: Path) -> None:
    await store.put_positions([entry(1, "A", "1", user=OTHER)])
    with pytest.raises(BadFile, match="line 2, user_id: the portfolio is another user's"):
        await import_positions(migrated, file(tmp_path, POSITIONS + GOOD))


async def test_quantity_zero_closes_a_position(migrated: str, store: Store, tmp_path: Path) -> None:
    await store.put_positions([entry(1, "KO", "1")])
    await import_positions(migrated, file(tmp_path, POSITIONS + f"{ONE},{USER},KO,0,2026-03-02\n"))
    assert await held(store, MONDAY) == {ONE: ()}


@pytest.mark.parametrize(
    ("row", "where"),
    [
        *(
            (f"KO,2026-03-02,{close}", f"line 2, close: '{close}' is {problem}")
            for close, problem in {
                "0": "not a price: it is zero",
                "0.000000": "not a price: it is zero",
                "-5": "not a decimal",
                "NaN": "not a decimal",
                "": "not a decimal",
                "1000000000": "too large",
                "0.0000001": "too precise",
            }.items()
        ),
        ("KO,2026-03-01,5", "line 2, session_date: '2026-03-01' is not a session in the calendar NYSE"),
        ("KO,2026-03-03,5", "line 2, session_date: '2026-03-03' is not over yet"),
        ("KO,2026-3-2,5", "line 2, session_date: '2026-3-2' is not a date"),
        ("ko,2026-03-02,5", "line 2, symbol: 'ko' is not a symbol"),
        ("KO,2026-03-02,5\nKO,2026-03-02,6", "line 3, symbol, session_date: the same as in line 2"),
    ],
)
async def test_invalid_prices_are_an_error_with_line_and_column_and_load_nothing(
    migrated: str, raw: Connection, tmp_path: Path, row: str, where: str
) -> None:
    with pytest.raises(BadFile, match=where):
        await import_prices(migrated, file(tmp_path, f"{PRICES}{row}\nPG,2026-03-02,1\n"), NYSE, NOW)
    assert await counts(raw) == (0, 0, 0)


async def test_a_suspected_split_is_loaded_and_reported(
    migrated: str, store: Store, raw: Connection, tmp_path: Path
) -> None:
    """A close is compared with the symbol's previous close in the file, or else in the database."""
    await raw.execute(
        "insert into price_eod (symbol, session_date, close, at, token) values ('PG', '2026-02-26', 10, now(), 1)"
    )
    jumping = "KO,2026-02-27,400\nKO,2026-03-02,100\nPG,2026-03-02,15\n"
    rows = jumping + "XOM,2026-03-02,7\nJPM,2026-02-27,10\nJPM,2026-03-02,14\n"
    report = (await import_prices(migrated, file(tmp_path, PRICES + rows), NYSE, NOW)).splitlines()
    assert report == [
        "6 lines: 6 new or changed closes",
        "closes that look like a stock split, loaded as they are: 2",
        "  KO from 400 to 100 on 2026-03-02",
        "  PG from 10.000000 to 15 on 2026-03-02",
    ]
    assert (await store.closes(MONDAY, ["KO"]))["KO"].close == 100


async def test_imported_closes_replace_those_of_a_source(migrated: str, raw: Connection, tmp_path: Path) -> None:
    await raw.execute(
        "insert into price_eod (symbol, session_date, close, at, token) values ('KO', $1, 5, now(), 1)", MONDAY
    )
    path = file(tmp_path, PRICES + "KO,2026-03-02,5\n")
    assert await import_prices(migrated, path, NYSE, NOW) == "1 lines: 1 new or changed closes"
    assert await import_prices(migrated, path, NYSE, NOW) == "1 lines: 0 new or changed closes"
    row = await raw.fetchrow("select token, at from price_eod")
    assert row is not None
    session = NYSE.session(MONDAY)
    assert session is not None
    assert (row["token"], row["at"]) == (None, session.close)


async def test_a_user_s_write_waits_for_an_import_of_the_same_positions(
    migrated: str, store: Store, raw: Connection, tmp_path: Path
) -> None:
    both = [entry(1, "B", "2"), entry(1, "A", "2")]
    await store.put_positions(both)
    path = file(tmp_path, POSITIONS + f"{ONE},{USER},A,3,2020-01-01\n{ONE},{USER},B,3,2020-01-01\n")
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks, raw.transaction():
        await raw.execute("select from position where symbol = 'A' for update")  # both writes start before either ends
        tasks.create_task(import_positions(migrated, path))
        await somebody_waits_for_a_lock(raw)
        tasks.create_task(store.put_own_positions(ONE, USER, both))
        await somebody_waits_for_a_lock(raw, 2)
    assert await held(store, MONDAY) == {ONE: (("A", Decimal(2)), ("B", Decimal(2)))}, "the import was first"


async def test_an_import_that_is_cut_off_keeps_its_locks_only_for_a_limited_time(
    migrated: str, store: Store, raw: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "END_IF_IDLE", END_IF_IDLE.replace("60s", "1s"))
    await store.put_positions([entry(1, "A", "1")])
    path = file(tmp_path, POSITIONS + f"{ONE},{USER},A,2,2026-03-02\n{OTHER},{USER},KO,1,2026-03-02\n")
    await import_positions(migrated, path)
    path = file(tmp_path, POSITIONS + f"{ONE},{USER},A,3,2026-03-02\n{OTHER},{USER},KO,2,2026-03-02\n")
    port = urlsplit(migrated).port
    assert port is not None
    async with Proxy(port) as proxy, asyncio.timeout(30):
        async with raw.transaction():
            await raw.execute("select from position where symbol = 'KO' for update")
            cut_off = asyncio.create_task(import_positions(migrated.replace(f":{port}/", f":{proxy.port}/"), path))
            await somebody_waits_for_a_lock(raw)
            proxy.black_hole()
        await raw.execute("delete from portfolio where id = $1", ONE)
        await proxy.cut()
        with pytest.raises(StoreError):
            await cut_off
    assert await raw.fetchval("select quantity from position where symbol = 'KO'") == 1


async def test_an_import_that_continues_too_late_gives_the_reason(
    migrated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "END_IF_IDLE", END_IF_IDLE.replace("60s", "100ms"))
    idle = """
        select count(*) = 0 from pg_stat_activity
        where datname = current_database() and state = 'idle in transaction' and pid <> pg_backend_pid()
    """

    async def until_ended() -> None:
        connection = await asyncpg.connect(migrated)
        await eventually(lambda: connection.fetchval(idle))
        await connection.close()

    async def stop(*_: object) -> None:
        """Block the event loop, as in a process that is stopped."""
        thread = Thread(target=lambda: asyncio.run(until_ended()))
        thread.start()
        thread.join()

    monkeypatch.setattr(imports, "_refuse_duplicates", stop)
    with pytest.raises(StoreError, match="idle-in-transaction timeout"):
        await import_positions(migrated, file(tmp_path, POSITIONS + GOOD))


@pytest.mark.parametrize("given", [("B", "A"), ("B",)], ids=["official closes", "one last live price"])
async def test_the_scheduler_s_closes_wait_for_an_import_of_the_same_closes(
    migrated: str, store: Store, raw: Connection, tmp_path: Path, given: Sequence[str]
) -> None:
    session = NYSE.session(MONDAY)
    assert session is not None
    path = file(tmp_path, PRICES + "A,2026-03-02,5\nB,2026-03-02,5\n")
    await store.claim_fence(FakeTerm())
    async with store.fenced(FakeTerm()) as writes:
        await writes.closes(MONDAY, session.close, [], [Price(symbol, Decimal(4), session.open) for symbol in "AB"])
        await writes.quotes([Quote("A", Decimal(6), session.close, MONDAY, Decimal(6))])

    async def write() -> None:
        prices = [Price(symbol, Decimal(6), session.close) for symbol in given]
        async with store.fenced(FakeTerm()) as writes:
            await writes.closes(MONDAY, session.close, ["A", "B"], prices)

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks, raw.transaction():
        await raw.execute("select from price_eod where symbol = 'A' for update")  # both writes start before either ends
        tasks.create_task(import_prices(migrated, path, NYSE, NOW))
        await somebody_waits_for_a_lock(raw)
        tasks.create_task(write())
        await somebody_waits_for_a_lock(raw, 2)
    closes = await store.closes(MONDAY, ["A", "B"])
    assert [closes[symbol].close for symbol in "AB"] == [5, 5], "the imported closes stay"


@pytest.mark.parametrize("below", ["", "\n\r\n"])
async def test_a_file_with_only_a_header_is_reported_and_is_not_a_failure(
    migrated: str, raw: Connection, tmp_path: Path, below: str
) -> None:
    nothing = "nothing to import: the file has no lines below the header"
    assert await import_positions(migrated, file(tmp_path, POSITIONS + below)) == nothing
    assert await import_prices(migrated, file(tmp_path, PRICES.strip() + below), NYSE, NOW) == nothing
    assert await counts(raw) == (0, 0, 0)


async def test_a_dry_run_keeps_nothing(migrated: str, raw: Connection, tmp_path: Path) -> None:
    assert "1 new portfolios" in await import_positions(migrated, file(tmp_path, POSITIONS + GOOD), dry_run=True)
    await import_prices(migrated, file(tmp_path, PRICES + "KO,2026-03-02,5\n"), NYSE, NOW, dry_run=True)
    assert await counts(raw) == (0, 0, 0)


def test_an_invalid_file_is_one_line_and_status_two(
    migrated_once: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_once)
    monkeypatch.setenv("AUTH", "off")
    for path, expected in (
        (
            file(tmp_path, "nonsense\n"),
            "file.csv, line 1: the header must be symbol,session_date,close, but it is 'nonsense'",
        ),
        (tmp_path / "nowhere.csv", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / ("x" * 300), "more characters): File name too long"),
    ):
        assert main(["import", "prices", str(path)]) == 2
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("\n") == 1
    with pytest.raises(SystemExit) as ended:
        main(["import", "everything", "file.csv"])
    assert ended.value.code == 2
