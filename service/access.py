"""The store, as soon as there is one, and whether the database answers now.

Serving does not wait for the database: a task that starts during an outage is healthy, says what is wrong, and works
once the database is back. Were it unhealthy instead, the platform would restart the whole fleet, which helps nobody.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from service.database import StoreError
from service.server_refusals import ServerRefused
from service.store import Store
from service.telemetry import HttpMetrics

PROBE_INTERVAL = 5.0
"""Seconds from one question to the next whether the database answers."""
PROBE_LIMIT = 3.0
"""Seconds after which the answer is late."""
CONNECT_INTERVAL = 1.0
"""Seconds from one attempt to connect for the first time to the next; `PROBE_INTERVAL` where a setting is wrong, since
servers lock out who comes with a wrong password again and again."""

logger = logging.getLogger(__name__)


class StoreAccess:
    """Connects, keeps asking whether the database answers, and logs each change, once."""

    def __init__(self, connect: Callable[[], Awaitable[Store]], metrics: HttpMetrics) -> None:
        self._connect = connect
        self._metrics = metrics
        self._store: Store | None = None
        self._connected = asyncio.Event()
        self.trouble: str | None = "not connected yet"
        """Why the database cannot be used, as of the last probe; None while it can."""

    @property
    def store(self) -> Store:
        """The store.

        Raises:
            StoreError: it has not been reached since the process started.
        """
        if self._store is None:
            raise StoreError(f"database: {self.trouble}")
        return self._store

    async def connected(self) -> Store:
        """The store, awaited for as long as it takes."""
        await self._connected.wait()
        return self.store

    async def run(self) -> None:
        """Connect, then probe, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            pause = PROBE_INTERVAL
            # Said while the probe goes on: to cancel a question to a frozen server takes as long as to wait for it.
            late = loop.call_later(PROBE_LIMIT, self._set_trouble, f"no answer within {PROBE_LIMIT:g} s")
            try:
                await self._probe()
            except StoreError as error:
                self._set_trouble(str(error).removeprefix("database: "))
                if self._store is None and not isinstance(error.__cause__, ServerRefused):
                    pause = CONNECT_INTERVAL
            else:
                self._set_trouble(None)
            finally:
                late.cancel()
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Close the connections; what is being asked is awaited."""
        if self._store is not None:
            await self._store.close()

    async def _probe(self) -> None:
        if self._store is not None:
            await self._store.ping()
            return
        store = await self._connect()
        try:
            await store.ping()
        except BaseException:
            await store.close()
            raise
        self._store = store
        self._connected.set()

    def _set_trouble(self, trouble: str | None) -> None:
        self._metrics.database_up.set(trouble is None)
        if trouble is not None and trouble != self.trouble:
            logger.error("database: %s", trouble)
        elif trouble is None and self.trouble is not None:
            logger.info("the database answers")
        self.trouble = trouble
