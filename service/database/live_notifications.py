"""Hearing of new values: LISTEN on a connection of its own, made anew whenever it is lost."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from service.database.connection import StoreError, store_errors
from service.database.fenced_writes import LIVE_CHANNEL
from service.database.pool import is_overload
from service.database.postgres_address import open_connection
from service.database.server_refusals import POOLED
from service.outage import Outage

logger = logging.getLogger(__name__)

OWNER_CHANNEL = "portfolio_owner"
"""Notifications of portfolios that were given to another user or deleted; a trigger sends them."""

PROBE_INTERVAL = 10.0
"""Seconds without a notice after which the connection is asked whether it is still there."""

RECONNECT_DELAY = 0.5, 5.0
"""Seconds from one attempt to the next: at first, and at most."""

ROOM_DELAY = 0.1
"""Seconds that the server may take to know that a connection was closed to give room."""


BACKEND = "select pg_catalog.pg_backend_pid()"
"""The server process of the session: in another one nobody listens."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Live values, or the owners of portfolios, have changed."""

    missed: bool
    """The connection is new: anything may have changed unheard, so read again what matters."""
    values: bool = True
    """Whether new values were heard of."""


async def listen(
    dsn: str,
    *,
    probe_interval: float = PROBE_INTERVAL,
    make_room: Callable[[], Awaitable[object]] | None = None,
) -> AsyncIterator[Notice]:
    """Yield a notice for each change of live values or owners, and one whenever the connection is made, again or not.

    Never ends by itself. Changes that come while the caller is busy are told in one notice. `make_room` is awaited
    where the server has no room for another connection.
    """
    first, most = RECONNECT_DELAY
    delay = first
    outage = Outage(
        logger, "listening for live values fails, and is tried again: %s", "live values are listened for again"
    )
    while True:
        try:
            async with aclosing(_listen_once(dsn, probe_interval)) as notices:
                async for notice in notices:
                    delay = first
                    outage.over()
                    yield notice
        except StoreError as error:
            pause = delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads the tasks, guards nothing
            outage.met(error)
            await asyncio.sleep(pause)
            if make_room is not None and is_overload(error.__cause__):
                await make_room()
                await asyncio.sleep(ROOM_DELAY)
            delay = min(delay * 2, most)


async def _listen_once(dsn: str, probe_interval: float) -> AsyncGenerator[Notice, None]:
    """Yield notices until the connection is lost.

    Raises:
        StoreError: it is lost, or could not be made.
    """
    stirred = asyncio.Event()
    heard: set[str] = set()

    def hear(_connection: object, _pid: int, channel: str, _payload: object) -> None:
        heard.add(channel)
        stirred.set()

    with store_errors():
        connection = await open_connection(dsn, command_timeout=10)
    try:
        with store_errors():
            connection.add_termination_listener(lambda _: stirred.set())
            backend = await connection.fetchval(BACKEND)
            for channel in (LIVE_CHANNEL, OWNER_CHANNEL):
                await connection.add_listener(channel, hear)
        yield Notice(missed=True, values=False)
        while True:
            try:
                async with asyncio.timeout(probe_interval):
                    await stirred.wait()
            except TimeoutError:
                with store_errors():  # a connection that died without a word is found out here
                    now = await connection.fetchval(BACKEND)
                if now == backend:
                    continue
                raise StoreError(f"database: {POOLED}") from None
            stirred.clear()
            if connection.is_closed():
                raise StoreError("database: the connection was closed")
            values = LIVE_CHANNEL in heard
            heard.clear()
            yield Notice(missed=False, values=values)
    finally:
        connection.terminate()  # at once: this may be a cancellation, and there is nothing to say goodbye for
