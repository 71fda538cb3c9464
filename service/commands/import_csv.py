"""`python -m service import positions|prices FILE`: loads a CSV file into the database, all of it or nothing."""

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
from service.commands.output import Parser, print_line
from service.database.connection import (
    END_IF_IDLE,
    ISOLATION,
    Connection,
    connect,
    row_count,
    store_errors,
    transaction,
)
from service.database.sql import statement
from service.database.store import Store
from service.market.calendar import CALENDARS, Calendar
from service.market.overrides import OverriddenCalendar
from service.portfolio.formats import (
    PRICE_LIMIT,
    PRICE_PLACES,
    QUANTITY_LIMIT,
    QUANTITY_PLACES,
    read_day,
    read_id,
    read_symbol,
)
from service.settings import Settings

POSITION_COLUMNS = ("portfolio_id", "user_id", "symbol", "quantity", "valid_from")
PRICE_COLUMNS = ("symbol", "session_date", "close")

ABOUT = """Load a CSV file, plain or gzipped: all of it or nothing. A line that was loaded before changes nothing.
A file with only a header is not an error, because programs write such files. An empty file is refused.

  positions  portfolio_id,user_id,symbol,quantity,valid_from   quantity 0 closes a position
  prices     symbol,session_date,close                         no source replaces an imported close

Values of past days stay as they are; `run snapshot --date D` corrects the values of a day."""

NOTHING = "nothing to import: the file has no lines below the header"

DECIMAL = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
MAX_SUSPECTS = 10
"""Limit of the suspected splits in a report."""
LINES_PER_TURN = 1000
"""Lines between two turns of the event loop. Without turns, Ctrl-C would wait minutes for the end of the file."""


class _DryRun(Exception):
    """Ends the transaction of a dry run without a commit."""


@dataclass(frozen=True, slots=True)
class ImportArguments:
    """The arguments of the command."""

    what: str
    path: Path
    dry_run: bool


def parse(options: Sequence[str]) -> ImportArguments:
    """Read the command line. argparse ends the process with status 2 if it is invalid."""
    parser = Parser(
        prog="python -m service import", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("positions", "prices"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="do everything except commit")
    arguments = parser.parse_args(options)
    return ImportArguments(arguments.what, arguments.file, arguments.dry_run)


async def run(arguments: ImportArguments, settings: Settings) -> None:
    """Load the file.

    Raises:
        BadFile: the file cannot be read or is invalid, and nothing was loaded. The text names the line of the error,
            and the column if the error is in one.
        StoreError: the database failed, and nothing was loaded.
    """
    dsn = settings.database_url.get_secret_value()
    if arguments.what == "positions":
        done = await import_positions(dsn, arguments.path, dry_run=arguments.dry_run)
    else:
        calendar = OverriddenCalendar(CALENDARS[settings.market_calendar]())
        async with await Store.connect(dsn, connections=1) as store:
            calendar.override(await store.market_overrides(calendar.name))
        done = await import_prices(dsn, arguments.path, calendar, utc_now(), dry_run=arguments.dry_run)
    print_line(f"{done}{'; nothing was written: this was a dry run' if arguments.dry_run else ''}")


async def import_positions(dsn: str, path: Path, *, dry_run: bool = False) -> str:
    """Load positions and their new portfolios; returns a report for people."""
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
        _print_on_terminal(f"{lines} lines read; writing them takes about as long as reading")
        await _refuse_duplicates(connection, file, ("portfolio_id", "symbol", "valid_from"))
        portfolios = row_count(await connection.execute(statement("import_portfolios")))
        other = await connection.fetchval(statement("import_other_owner"))
        if other is not None:
            raise file.bad("the portfolio is another user's", line=other, column="user_id")
        positions = row_count(await connection.execute(statement("import_positions")))
    return f"{lines} lines: {portfolios} new portfolios, {positions} new or changed positions"


async def import_prices(dsn: str, path: Path, calendar: Calendar, now: datetime, *, dry_run: bool = False) -> str:
    """Load closing prices; returns a report for people, which lists changes that look like a stock split."""
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
        _print_on_terminal(f"{lines} lines read; writing them takes about as long as reading")
        await _refuse_duplicates(connection, file, ("symbol", "session_date"))
        suspects = await connection.fetch(statement("import_split_suspects"))
        closes = row_count(await connection.execute(statement("import_prices")))
    report = [f"{lines} lines: {closes} new or changed closes"]
    if suspects:
        report.append(f"closes that look like a stock split, loaded as they are: {len(suspects)}")
        report += [
            f"  {one_line(suspect['symbol'], 64)} from {suspect['before']:f} to {suspect['close']:f} "
            f"on {suspect['session_date']}"
            for suspect in suspects[:MAX_SUSPECTS]
        ]
    return "\n".join(report)


@asynccontextmanager
async def _transaction(dsn: str, *, dry_run: bool) -> AsyncIterator[Connection]:
    connection = await connect(dsn)
    with store_errors():
        try:
            with suppress(_DryRun):
                async with transaction(connection, isolation=ISOLATION):
                    await connection.execute(
                        f"{END_IF_IDLE}; set local statement_timeout = 0; set local work_mem = '128MB'"
                    )
                    yield connection
                    if dry_run:
                        raise _DryRun
        finally:
            await connection.close(timeout=10)


async def _refuse_duplicates(connection: Connection, file: CsvFile, key: tuple[str, ...]) -> None:
    columns = ", ".join(key)
    duplicate = await connection.fetchrow(
        f"select min(line) as first, max(line) as last from imported group by {columns} "  # noqa: S608 - constant names
        "having count(*) > 1 order by max(line) limit 1"
    )
    if duplicate is not None:
        raise file.bad(f"the same as in line {duplicate['first']}", line=duplicate["last"], column=columns)


async def _with_progress(file: CsvFile, path: Path) -> AsyncIterator[tuple[int, dict[str, str]]]:
    with tqdm(total=_size(path), desc=one_line(path.name, 64), unit="B", unit_scale=True, disable=None) as bar:
        for line, row in file.rows(lambda read: bar.update(read - bar.n)):
            if line % LINES_PER_TURN == 0:
                await asyncio.sleep(0)
            yield line, row


def _print_on_terminal(text: str) -> None:
    if sys.stderr.isatty():  # the progress bar, too, is shown only on a terminal
        sys.stderr.write(f"{text}\n")


def _size(path: Path) -> int:
    with suppress(OSError):  # opening the file reports the error
        return path.stat().st_size
    return 0


def _quantity(text: str) -> Decimal:
    quantity = _decimal(text, QUANTITY_PLACES)
    if quantity >= QUANTITY_LIMIT:
        raise ValueError(f"too large: {QUANTITY_LIMIT:f} shares or more")
    return quantity


def _price(text: str) -> Decimal:
    price = _decimal(text, PRICE_PLACES)
    if price == 0:
        raise ValueError("not a price: it is zero")
    if price >= PRICE_LIMIT:
        raise ValueError(f"too large: {PRICE_LIMIT:f} dollars or more")
    return price


def _decimal(text: str, places: int) -> Decimal:
    """A decimal number of zero or more, without rounding."""
    if not DECIMAL.fullmatch(text):
        raise ValueError("not a decimal number of zero or more, such as 12.5")
    if len(text.partition(".")[2].rstrip("0")) > places:
        raise ValueError(f"too precise: more than {places} decimal places")
    return Decimal(text)
