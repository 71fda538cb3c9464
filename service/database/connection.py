"""Connections to Postgres, and their errors, each as one line that is safe to log and to show to a user."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, Literal, TypeAlias

import asyncpg

from runtime.escape import one_line
from service.database.postgres_address import open_connection
from service.database.server_refusals import MORE_CONNECTIONS, TRANSACTION_POOLER_ERROR, ServerRefused, is_overload

ERROR_SHOWN = 300
"""Limit of a server's error, in characters. The error may quote a value of any size from a row."""
Isolation: TypeAlias = Literal["read_committed", "repeatable_read"]
ISOLATION: Final = "read_committed"
"""Isolation level of each transaction that writes, except migrations. `enter_fence.sql` waits for a row lock and then
reads the row's newest version. With a stricter level, which a database or a role may have as its default, that wait
would end in an error."""
END_IF_IDLE = "set local idle_in_transaction_session_timeout = '60s'"
"""First statement of each transaction that locks rows or tables, except a leader's, which has a shorter limit.

The server ends the transaction of a client that is stopped or cut off, and releases its locks. No limit of the server
applies while the server waits for the data of a COPY, so a COPY must come before the locks.
"""
ROLLBACK_LIMIT = 2.0
"""Seconds that a rollback may take. After that its connection is closed, and the server rolls back by itself."""
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""The errors of asyncpg and of the network, timeouts included."""

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


class StoreError(Exception):
    """The database could not be reached, or it refused. A retry may succeed.

    The transaction that failed is not committed, unless only the answer to its commit was lost.
    """


class StaleTerm(Exception):
    """The term may not write any more. The usual reason is that a newer term has claimed the fence of the lease."""


@contextmanager
def store_errors() -> Iterator[None]:
    """Raise `StoreError` for the errors of asyncpg and of the network."""
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError) as error:
        raise StoreError(f"database: {_words(error)}; bring it up to date with python -m service migrate") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise StoreError(f"database: {_words(error)}; DATABASE_URL's role lacks a right (docs/database.md)") from error
    except (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError) as error:
        raise StoreError(f"database: {TRANSACTION_POOLER_ERROR}") from error
    except asyncpg.PostgresError as error:
        raise StoreError(f"database: {overload_text(error) if is_overload(error) else _words(error)}") from error
    except asyncpg.TargetServerAttributeNotMatched as error:
        raise StoreError("database: no host of DATABASE_URL accepts writes (target_session_attrs)") from error
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


def overload_text(error: asyncpg.PostgresError) -> str:
    """The server's message that there are too many connections, and the remedy."""
    return f"{_words(error)}; {MORE_CONNECTIONS}"


async def connect(dsn: str) -> "asyncpg.Connection[asyncpg.Record]":
    """Open a connection outside of any pool.

    Raises:
        StoreError: the connection could not be made.
    """
    with store_errors(), dsn_errors():
        return await open_connection(dsn)


@contextmanager
def dsn_errors() -> Iterator[None]:
    """Raise `StoreError`, without any part of the address, for an address that is invalid in this environment."""
    try:
        yield
    except asyncpg.InterfaceError:
        raise
    except KeyError:  # this process's user id has no name, as in a container
        raise StoreError("database: neither DATABASE_URL nor PGUSER names a user") from None
    except ValueError:  # its text may contain a part of the password
        raise StoreError("database: DATABASE_URL is invalid") from None


def _reason(error: OSError) -> str:
    """The system's message, without the address; the library's message where no system call failed."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return one_line(str(error) or type(error).__name__, ERROR_SHOWN)


def _words(error: asyncpg.PostgresError) -> str:
    return one_line(error.args[0] if error.args else type(error).__name__, ERROR_SHOWN)


def row_count(done: str) -> int:
    """The row count in a command's status, such as 3 in "UPDATE 3"."""
    return int(done.rsplit(" ", 1)[-1])


@asynccontextmanager
async def transaction(
    connection: Connection, *, isolation: Isolation | None = None, readonly: bool = False
) -> AsyncIterator[None]:
    """A transaction or, within a transaction, a savepoint.

    If the block fails, the caller gets the block's error, even if the rollback fails too. With asyncpg's `async with`,
    the error of the rollback would replace a cancellation. Work is cancelled only once, so it would not end.
    """
    begun = connection.transaction(isolation=isolation, readonly=readonly)
    try:
        await begun.start()
        yield
    except BaseException:
        try:
            async with asyncio.timeout(ROLLBACK_LIMIT):
                await begun.rollback()
        except DRIVER_ERRORS:
            terminate(connection)
        raise
    await begun.commit()


def terminate(connection: Connection) -> None:
    """Close a connection at once."""
    with suppress(asyncpg.InterfaceError):  # the server has closed it already
        connection.terminate()


async def run_concurrently(steps: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all coroutines concurrently and wait for them. The first failure cancels the others and is raised.

    If this task is cancelled meanwhile, the cancellation is raised instead of the failure, because a caller may catch
    the failure and continue.
    """
    this = asyncio.current_task()
    cancelled_before = this.cancelling() if this is not None else 0
    try:
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(step) for step in steps]
            if started:  # a group that fails after its block would leave `cancelling()` too high
                await asyncio.wait(started)
    except ExceptionGroup as failed:  # not `except*`: in Python 3.11.2 (Debian 12) it wraps a raised error in a group
        if this is not None and this.cancelling() > cancelled_before:
            raise asyncio.CancelledError from failed
        raise failed.exceptions[0] from failed
