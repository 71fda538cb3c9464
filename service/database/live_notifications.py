"""Notifications of new live values and changed owners: LISTEN on a connection that is replaced when it is lost."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from runtime.backoff import Backoff
from service.database.connection import StoreError, store_errors
from service.database.fenced_writes import LIVE_CHANNEL
from service.database.postgres_address import open_connection
from service.database.server_refusals import TRANSACTION_POOLER_ERROR, is_overload
from service.outage import Outage

logger = logging.getLogger(__name__)

OWNER_CHANNEL = "portfolio_owner"
"""Channel for portfolios that were given to another user or deleted; a trigger notifies it."""

PROBE_INTERVAL = 10.0
"""Seconds without a notification after which the connection is checked."""

RECONNECT_DELAY = 0.5, 5.0
"""Seconds from one attempt to the next: first pause and longest pause."""

CLOSE_DELAY = 0.1
"""Seconds that the server may need to notice that a pool has closed a connection."""


BACKEND_QUERY = "select pg_catalog.pg_backend_pid()"
"""Query for the id of the session's server process. Only that process receives notifications for this connection."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A change of live values or of portfolios' owners."""

    missed: bool
    """Whether the connection is new.

    Changes before the connection was made are unknown, so the caller must read the values again.
    """
    values: bool = True
    """Whether live values have changed."""


async def listen(
    dsn: str,
    *,
    probe_interval: float = PROBE_INTERVAL,
    free_connection: Callable[[], Awaitable[object]] | None = None,
) -> AsyncGenerator[Notice, None]:
    """Yield a notice for each change of live values or owners, and one for each new connection.

    The iteration does not end by itself. Changes that come while the caller is busy are combined into one notice.
    `free_connection` is awaited if the server allows no further connection.
    """
    backoff = Backoff(*RECONNECT_DELAY)
    outage = Outage(logger, "listening for live values failed, retrying: %s", "listening for live values works again")
    while True:
        try:
            async with aclosing(_listen_once(dsn, probe_interval)) as notices:
                async for notice in notices:
                    backoff.reset()
                    outage.recovered()
                    yield notice
        except StoreError as error:
            outage.failed(error)
            await asyncio.sleep(backoff.next())
            if free_connection is not None and is_overload(error.__cause__):
                await free_connection()
                await asyncio.sleep(CLOSE_DELAY)


async def _listen_once(dsn: str, probe_interval: float) -> AsyncGenerator[Notice, None]:
    """Yield notices until the connection is lost.

    Raises:
        StoreError: the connection was lost, or could not be made.
    """
    wake = asyncio.Event()
    heard: set[str] = set()

    def on_notification(_connection: object, _pid: int, channel: str, _payload: object) -> None:
        heard.add(channel)
        wake.set()

    with store_errors():
        connection = await open_connection(dsn, command_timeout=10)
    try:
        with store_errors():
            connection.add_termination_listener(lambda _: wake.set())
            backend = await connection.fetchval(BACKEND_QUERY)
            for channel in (LIVE_CHANNEL, OWNER_CHANNEL):
                await connection.add_listener(channel, on_notification)
        yield Notice(missed=True, values=False)
        while True:
            try:
                async with asyncio.timeout(probe_interval):
                    await wake.wait()
            except TimeoutError:
                with store_errors():  # finds a connection that died silently
                    now = await connection.fetchval(BACKEND_QUERY)
                if now == backend:
                    continue
                raise StoreError(f"database: {TRANSACTION_POOLER_ERROR}") from None
            wake.clear()
            if connection.is_closed():
                raise StoreError("database: the connection was closed")
            values = LIVE_CHANNEL in heard
            heard.clear()
            yield Notice(missed=False, values=values)
    finally:
        connection.terminate()  # a graceful close would delay a cancellation
