"""The store, as soon as there is one, and whether the database answers now.

Serving does not wait for the database: a task that starts during an outage is healthy, says what is wrong, and works
once the database is back. Were it unhealthy instead, the platform would restart the whole fleet, which helps nobody.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from service.database.condition import ClockWatch, Condition
from service.database.connection import StoreError
from service.database.server_refusals import ServerRefused
from service.database.store import Store
from service.database.write_watch import WriteWatch
from service.telemetry import HttpMetrics

PROBE_INTERVAL = 5.0
"""Seconds from one question to the next whether the database answers."""
PROBE_LIMIT = 3.0
"""Seconds after which the answer is late."""
NO_ANSWER = f"no answer within {PROBE_LIMIT:g} s"
SESSIONS_INTERVAL = 60.0
"""Seconds from one look for a pooler that swaps sessions to the next."""
CONNECT_INTERVAL = 1.0
"""Seconds from one attempt to connect for the first time to the next; `PROBE_INTERVAL` where a setting is wrong, since
servers lock out who comes with a wrong password again and again."""

logger = logging.getLogger(__name__)


class StoreAccess:
    """Connects, keeps asking whether the database answers, and logs each change, once."""

    def __init__(
        self, connect: Callable[[], Awaitable[Store]], metrics: HttpMetrics, writes: WriteWatch | None = None
    ) -> None:
        self._writes = writes or WriteWatch()
        self._connect = connect
        self._metrics = metrics
        self._store: Store | None = None
        self._connected = asyncio.Event()
        self._reported: set[str] = set()
        """The reasons that were logged in this outage, each once: two may take turns."""
        self._sessions_due = 0.0
        self._recovered = asyncio.Event()
        self._clock_watch = ClockWatch(metrics.clock_ahead)
        self._trouble_since: float | None = None
        self._probed: str | None = "not connected yet"
        metrics.database_writable.set_function(lambda: float(self.trouble is None))

    @property
    def trouble(self) -> str | None:
        """Why the database cannot be used, as of the last probe and the last writes; None while it can."""
        return self._probed or self._writes.trouble

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
        while True:
            pause = PROBE_INTERVAL
            # Said while the probe goes on: to cancel a question to a frozen server takes as long as to wait for it.
            late = asyncio.create_task(self._tell_late())
            try:
                condition = await self._probe()
            except StoreError as error:
                timed_out = isinstance(error.__cause__, TimeoutError)
                if timed_out and self._is_busy():
                    continue
                self._set_trouble(NO_ANSWER if timed_out else str(error).removeprefix("database: "))
                if self._store is None and not isinstance(error.__cause__, ServerRefused):
                    pause = CONNECT_INTERVAL
            else:
                self._set_trouble(condition.trouble, answers=True)
                self._clock_watch.compare(condition.ahead)
                if condition.trouble is None:
                    self._writes.not_read_only()
            finally:
                late.cancel()
                await asyncio.wait((late,))
            await asyncio.sleep(pause)

    async def _tell_late(self) -> None:
        while True:
            await asyncio.sleep(PROBE_LIMIT)
            if not self._is_busy():
                self._set_trouble(NO_ANSWER)

    def _is_busy(self) -> bool:
        """Whether the probe waits for a connection that answers others: that is no outage."""
        return self._store is not None and self._store.answered_within(PROBE_LIMIT)

    def trouble_for(self) -> float:
        """Seconds since the database was last known to be usable; 0 while it is."""
        return 0.0 if self._trouble_since is None else time.monotonic() - self._trouble_since

    async def recovery(self) -> None:
        """Return when a database that could not be used can be used again."""
        await self._recovered.wait()

    async def close(self) -> None:
        """Close the connections; what is being asked is awaited."""
        if self._store is not None:
            await self._store.close()

    async def _probe(self) -> Condition:
        if self._store is not None:
            if self._store.sessions_suspected or time.monotonic() >= self._sessions_due:
                await self._store.check_sessions()
                self._sessions_due = time.monotonic() + SESSIONS_INTERVAL
            await self._store.ping()
            return await self._store.condition()
        store = await self._connect()
        try:
            await store.check_sessions()
            await store.ping()
            condition = await store.condition()
        except BaseException:
            await store.close()
            raise
        self._store = store
        self._connected.set()
        return condition

    def _set_trouble(self, trouble: str | None, *, answers: bool = False) -> None:
        self._metrics.database_up.set(answers)
        if trouble is None and self._trouble_since is not None:
            self._trouble_since = None
            self._recovered.set()
            self._recovered = asyncio.Event()
        elif trouble is not None and self._trouble_since is None:
            self._trouble_since = time.monotonic()
        if trouble is not None and trouble not in self._reported:
            self._reported.add(trouble)
            logger.error("database: %s", trouble)
        elif trouble is None and self._probed is not None:
            self._reported.clear()
            logger.info("the database answers")
        self._probed = trouble
