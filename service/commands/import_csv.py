"""`python -m service import positions|prices FILE`: a CSV file into the database, all of it or nothing."""

import argparse
import asyncio
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path

from tqdm import tqdm

from runtime.escape import one_line
from service.clock import utc_now
from service.commands.csv_file import CsvFile
from service.commands.output import Parser
from service.database.connection import ISOLATION, Connection, connect, row_count, store_errors
from service.database.sql import statement
from service.database.store import Store
from service.market.calendar import CALENDARS, Calendar
from service.market.overrides import OverriddenCalendar
from service.portfolio.formats import MOST_QUANTITY, QUANTITY_PLACES, read_day, read_id, read_symbol
from service.portfolio.valuation import HIGHEST_PRICE
from service.settings import Settings

POSITION_COLUMNS = ("portfolio_id", "user_id", "symbol", "quantity", "valid_from")
PRICE_COLUMNS = ("symbol", "session_date", "close")

ABOUT = """Load a CSV file, plain or gzipped: all of it or nothing. A line that is there already changes nothing.
A header without lines is said and is no failure, for files that a program makes; an empty file is refused.

  positions  portfolio_id,user_id,symbol,quantity,valid_from   quantity 0 closes a position
  prices     symbol,session_date,close                         no source replaces an imported close

Values of past days stay as they are; `run snapshot --date D` sets those of a day right."""

NOTHING = "nothing to import: there is no line below the header"

DECIMAL = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
JUMPS_SHOWN = 10
LINES_AT_A_TIME = 1000
"""After which the event loop has its turn: else Ctrl-C would be heard at the file's end, which may be minutes away."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for."""

    what: str
    path: Path
    dry_run: bool


def parse(options: Sequence[str]) -> Asked:
    """Read the command line; argparse ends the process, with status 2, if it makes no sense."""
    parser = Parser(
        prog="python -m service import", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("positions", "prices"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="do everything but commit")
    asked = parser.parse_args(options)
    return Asked(asked.what, asked.file, asked.dry_run)


async def run(asked: Asked, settings: Settings) -> None:
    """Load the file.

    Raises:
        BadFile: nothing was loaded; the text names the line and the column of the first value that is wrong.
        StoreError: nothing was loaded.
    """
    dsn = settings.database_url.get_secret_value()
    if asked.what == "positions":
        done = await import_positions(dsn, asked.path, dry_run=asked.dry_run)
    else:
        calendar = OverriddenCalendar(CALENDARS[settings.market_calendar]())
        async with await Store.connect(dsn, connections=1) as store:
            calendar.override(await store.market_overrides(calendar.name))
        done = await import_prices(dsn, asked.path, calendar, utc_now(), dry_run=asked.dry_run)
    sys.stdout.write(f"{done}{'; nothing was kept: this was a dry run' if asked.dry_run else ''}\n")


async def import_positions(dsn: str, path: Path, *, dry_run: bool = False) -> str:
    """Load positions, and the portfolios that are new; returns what was done, in words."""
    file = CsvFile(path, POSITION_COLUMNS)

    async def records() -> AsyncIterator[tuple[object, ...]]:
        async for line, row in _with_progress(file, path):
            yield (
                line,
                file.value(row, "portfolio_id", read_id),
                file.value(row, "user_id", read_id),
                file.value(row, "symbol", read_symbol),
                file.value(row, "quantity", _quantity),
                file.value(row, "valid_from", read_day),
            )

    async with _transaction(dsn, dry_run=dry_run) as connection:
        await connection.execute(statement("import_table_positions"))
        lines = row_count(await connection.copy_records_to_table("imported", records=records()))
        if not lines:
            return NOTHING
        _tell_on_terminal(f"{lines} lines read; they are being written, which takes about as long")
        await _refuse_doubles(connection, file, ("portfolio_id", "symbol", "valid_from"))
        portfolios = row_count(await connection.execute(statement("import_portfolios")))
        other = await connection.fetchval(statement("import_other_owner"))
        if other is not None:
            raise file.bad("the portfolio is another user's", line=other, column="user_id")
        positions = row_count(await connection.execute(statement("import_positions")))
    return f"{lines} lines: {portfolios} new portfolios, {positions} new or changed positions"


async def import_prices(dsn: str, path: Path, calendar: Calendar, now: datetime, *, dry_run: bool = False) -> str:
    """Load closing prices; returns what was done, in words, with the jumps that look like a split."""
    file = CsvFile(path, PRICE_COLUMNS)

    @cache
    def close_of(text: str) -> tuple[date, datetime]:
        day = read_day(text)
        session = calendar.session(day)
        if session is None:
            raise ValueError(f"not a session in the calendar {calendar.name}")
        if session.close > now:
            raise ValueError("not over yet")
        return day, session.close

    async def records() -> AsyncIterator[tuple[object, ...]]:
        async for line, row in _with_progress(file, path):
            symbol = file.value(row, "symbol", read_symbol)
            day, at = file.value(row, "session_date", close_of)
            yield line, symbol, day, file.value(row, "close", _price), at

    async with _transaction(dsn, dry_run=dry_run) as connection:
        await connection.execute(statement("import_table_prices"))
        lines = row_count(await connection.copy_records_to_table("imported", records=records()))
        if not lines:
            return NOTHING
        _tell_on_terminal(f"{lines} lines read; they are being written, which takes about as long")
        await _refuse_doubles(connection, file, ("symbol", "session_date"))
        jumps = await connection.fetch(statement("import_jumps"))
        closes = row_count(await connection.execute(statement("import_prices")))
    told = [f"{lines} lines: {closes} new or changed closes"]
    if jumps:
        told.append(f"taken as they are, though they jump as at a split: {len(jumps)}")
        told += [
            f"  {one_line(j['symbol'], 64)} from {j['before']:f} to {j['close']:f} on {j['session_date']}"
            for j in jumps[:JUMPS_SHOWN]
        ]
    return "\n".join(told)


@asynccontextmanager
async def _transaction(dsn: str, *, dry_run: bool) -> AsyncIterator[Connection]:
    connection = await connect(dsn)
    with store_errors():
        try:
            transaction = connection.transaction(isolation=ISOLATION)
            await transaction.start()
            try:
                await connection.execute("set local statement_timeout = 0; set local work_mem = '128MB'")
                yield connection
            except BaseException:
                await transaction.rollback()
                raise
            await (transaction.rollback() if dry_run else transaction.commit())
        finally:
            await connection.close(timeout=10)


async def _refuse_doubles(connection: Connection, file: CsvFile, key: tuple[str, ...]) -> None:
    columns = ", ".join(key)
    double = await connection.fetchrow(
        f"select min(line) as first, max(line) as last from imported group by {columns} "  # noqa: S608 - our own names
        "having count(*) > 1 order by max(line) limit 1"
    )
    if double is not None:
        raise file.bad(f"the same as in line {double['first']}", line=double["last"], column=columns)


async def _with_progress(file: CsvFile, path: Path) -> AsyncIterator[tuple[int, dict[str, str]]]:
    with tqdm(total=_size(path), desc=one_line(path.name, 64), unit="B", unit_scale=True, disable=None) as bar:
        for line, row in file.rows(lambda read: bar.update(read - bar.n)):
            if line % LINES_AT_A_TIME == 0:
                await asyncio.sleep(0)
            yield line, row


def _tell_on_terminal(text: str) -> None:
    if sys.stderr.isatty():  # where the progress bar is, too
        sys.stderr.write(f"{text}\n")


def _size(path: Path) -> int:
    with suppress(OSError):  # to open it will tell
        return path.stat().st_size
    return 0


def _quantity(text: str) -> Decimal:
    quantity = _decimal(text, QUANTITY_PLACES)
    if quantity >= MOST_QUANTITY:
        raise ValueError(f"too large: {MOST_QUANTITY:f} shares or more")
    return quantity


def _price(text: str) -> Decimal:
    price = _decimal(text, 6)
    if price == 0:
        raise ValueError("not a price: it is zero")
    if price >= HIGHEST_PRICE:
        raise ValueError(f"too large: {HIGHEST_PRICE:f} dollars or more")
    return price


def _decimal(text: str, places: int) -> Decimal:
    """A number of zero or more, exactly."""
    if not DECIMAL.fullmatch(text):
        raise ValueError("not a decimal number of zero or more, such as 12.5")
    if len(text.partition(".")[2].rstrip("0")) > places:
        raise ValueError(f"too precise: more than {places} decimal places")
    return Decimal(text)
