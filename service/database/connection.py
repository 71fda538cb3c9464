"""Connections to Postgres, and what can go wrong there, told in one line that a log may hold and a user may read."""

import asyncio
import os
import socket
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import asyncpg

from runtime.escape import one_line
from service.database.postgres_address import open_connection
from service.database.server_refusals import POOLED, ServerRefused

ERROR_SHOWN = 300
"""Characters of a server's error: it may repeat a value, such as a row's, of any size."""
ISOLATION: Final = "read_committed"
"""Isolation level of each transaction that writes. The fence waits for a row and then looks at its newest version. A
database or a role whose default is stricter would let that wait end in an error."""

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


class StoreError(Exception):
    """The database could not be reached, or refused; what was being written is not committed. May pass: try later."""


class StaleTerm(Exception):
    """A newer term has taken this lease up in the database: this one may write no more, now or later."""


@contextmanager
def store_errors() -> Iterator[None]:
    """Raise `StoreError` for what asyncpg and the network raise."""
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError) as error:
        raise StoreError(f"database: {_words(error)}; bring it up to date with python -m service migrate") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise StoreError(f"database: {_words(error)}; DATABASE_URL's role lacks a right (docs/database.md)") from error
    except (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError) as error:
        raise StoreError(f"database: {POOLED}") from error
    except asyncpg.PostgresError as error:
        raise StoreError(f"database: {_words(error)}") from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise StoreError(f"database connection: {one_line(error, ERROR_SHOWN)}") from error
    except TimeoutError as error:
        raise StoreError("database: no answer in time") from error
    except ServerRefused as error:
        raise StoreError(f"database: {error}") from error
    except socket.gaierror as error:
        raise StoreError(f"database: cannot look up the host of DATABASE_URL: {error.strerror}") from error
    except OSError as error:
        raise StoreError(f"database: cannot connect: {_reason(error)}") from error


async def connect(dsn: str) -> "asyncpg.Connection[asyncpg.Record]":
    """A connection outside of any pool.

    Raises:
        StoreError: there is none to be had.
    """
    with store_errors(), dsn_errors():
        return await open_connection(dsn)


@contextmanager
def dsn_errors() -> Iterator[None]:
    """Raise `StoreError`, without a word of the address, for one that makes no sense together with the environment."""
    try:
        yield
    except asyncpg.InterfaceError:
        raise
    except KeyError:  # nobody is called by this process's user id, as in a container
        raise StoreError("database: neither DATABASE_URL nor PGUSER names a user") from None
    except ValueError:  # its text may hold a piece of the password
        raise StoreError("database: DATABASE_URL makes no sense") from None


def _reason(error: OSError) -> str:
    """The system's words, without the address; the library's where no call of the system failed."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return one_line(str(error) or type(error).__name__, ERROR_SHOWN)


def _words(error: asyncpg.PostgresError) -> str:
    return one_line(error.args[0] if error.args else type(error).__name__, ERROR_SHOWN)


def row_count(done: str) -> int:
    """Of how many rows a command tells that is done, such as "UPDATE 3"."""
    return int(done.rsplit(" ", 1)[-1])


async def side_by_side(steps: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All of these, each on a connection of its own, to their end; the first failure ends the others and is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for step in steps:
                tasks.create_task(step)
    except ExceptionGroup as failed:  # not `except*`: Python 3.11.2, Debian 12's, makes a group of what it raises
        raise failed.exceptions[0] from failed
