"""Access to the store once it is connected, and whether the database can be used now.

Serving does not wait for the database. A task that starts during an outage is healthy, reports the outage, and works
once the outage is over. If an outage made tasks unhealthy, the platform would restart every task, which cannot end the
outage.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from service.database.condition import ClockWatch, Condition
from service.database.connection import StoreError
from service.database.server_refusals import ServerRefused
from service.database.store import Store
from service.database.write_watch import WriteWatch
from service.telemetry import HttpMetrics

PROBE_INTERVAL = 5.0
"""Time between two probes of the database, in seconds."""
PROBE_LIMIT = 3.0
"""Limit for the answer to a probe, in seconds."""
NO_ANSWER = f"no answer within {PROBE_LIMIT:g} s"
TRIAL_INTERVAL = 1.0
"""Time between two requests that wait for a database that does not answer, in seconds."""
NEW_CONNECTION_INTERVAL = 1.0
"""Time between two attempts at a new connection to a database that does not answer, in seconds."""
SESSIONS_INTERVAL = 60.0
"""Time between two checks for a pooler that swaps sessions, in seconds."""
CONNECT_INTERVAL = 1.0
"""Time between two attempts at the first connection, in seconds. After a refusal it is `PROBE_INTERVAL`: servers lock
out a client that keeps sending a wrong password."""

logger = logging.getLogger(__name__)


class StoreAccess:
    """Connects, probes the database, and logs each change once."""

    def __init__(
        self, connect: Callable[[], Awaitable[Store]], metrics: HttpMetrics, writes: WriteWatch | None = None
    ) -> None:
        self._writes = writes or WriteWatch()
        self._connect = connect
        self._metrics = metrics
        self._store: Store | None = None
        self._connected = asyncio.Event()
        self._reported: set[str] = set()
        """The reasons that were logged in this outage. Two reasons may alternate; each is logged once."""
        self._sessions_due = 0.0
        self._recovered = asyncio.Event()
        self._clock_watch = ClockWatch(metrics.clock_ahead)
        self._trouble_since: float | None = None
        self._probed: str | None = "not connected yet"
        self._next_trial = 0.0
        metrics.database_writable.set_function(lambda: float(self.trouble is None))

    @property
    def trouble(self) -> str | None:
        """Why the database cannot be used, as of the last probe and the last writes; None while it can be used."""
        return self._probed or self._writes.trouble

    @property
    def clock_difference(self) -> timedelta | None:
        """See `ClockWatch.difference`."""
        return self._clock_watch.difference

    @property
    def store(self) -> Store:
        """The store.

        Raises:
            StoreError: the first connection has not been made yet, or the database does not answer.
        """
        if self._store is None or self._is_silent():
            raise StoreError(f"database: {self.trouble}")
        return self._store

    async def connected(self) -> Store:
        """Wait for the first connection, without limit, and return the store."""
        while self._store is None:
            await self._connected.wait()
        return self._store

    async def run(self) -> None:
        """Connect, then probe, until cancelled."""
        while True:
            pause = PROBE_INTERVAL
            # A separate task reports a late probe. A timeout of the probe would report it later, because the cancelled
            # query of a frozen server takes seconds to end.
            late = asyncio.create_task(self._watch_late_probe())
            try:
                condition = await self._probe()
            except StoreError as error:
                timed_out = isinstance(error.__cause__, TimeoutError)
                if late.done() or (timed_out and self._is_busy()):
                    continue  # the probe used a dead connection, or waited for a connection
                self._set_trouble(NO_ANSWER if timed_out else str(error).removeprefix("database: "))
                if self._store is None and not isinstance(error.__cause__, ServerRefused):
                    pause = CONNECT_INTERVAL
            else:
                self._set_trouble(condition.trouble, answers=True)
                self._clock_watch.compare(condition.clock_lead)
                if condition.trouble is None:
                    self._writes.not_read_only()
            finally:
                late.cancel()
                await asyncio.wait((late,))
            await asyncio.sleep(pause)

    async def _watch_late_probe(self) -> None:
        """Report a late probe, and replace dead connections; returns as soon as some were replaced."""
        await asyncio.sleep(PROBE_LIMIT)
        while True:
            if not self._is_busy():
                self._set_trouble((self._store and self._store.overload) or NO_ANSWER)
                if await self._replace_dead_connections():
                    return
            await asyncio.sleep(NEW_CONNECTION_INTERVAL)

    async def _replace_dead_connections(self) -> bool:
        """Replace dead connections if the database accepts a new connection; returns whether any were replaced.

        If dead connections were kept, the few requests that wait on them would leave no connection for other requests.
        """
        try:
            replaced = self._store is not None and await self._store.replace_dead_connections()
        except StoreError:
            return False
        if replaced:
            logger.warning("database: open connections do not answer, but a new one does; the silent ones are replaced")
        return replaced

    def _is_busy(self) -> bool:
        """Whether the database has answered another query lately. Then a late probe is not an outage."""
        return self._store is not None and self._store.answered_within(PROBE_LIMIT)

    def _is_silent(self) -> bool:
        """Whether a request should not wait for the database, because the database does not answer.

        Each waiting request keeps a connection of its client open for half a minute. One request per `TRIAL_INTERVAL`
        waits nevertheless. If its database connection is dead, the connection is replaced, and the request may find the
        end of the outage before the next probe.
        """
        if self._probed != NO_ANSWER or self._is_busy():
            return False
        now = time.monotonic()
        is_trial = now >= self._next_trial
        if is_trial:
            self._next_trial = now + TRIAL_INTERVAL
        return not is_trial

    def trouble_for(self) -> float:
        """Seconds since the database could last be used; 0 while it can be used."""
        return 0.0 if self._trouble_since is None else time.monotonic() - self._trouble_since

    async def recovery(self) -> None:
        """Wait for the end of an outage."""
        await self._recovered.wait()

    async def close(self) -> None:
        """Close the connections once their queries have ended."""
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
            logger.error("database: %s", trouble, extra={"event": "database_failed"})
        elif trouble is None and self._probed is not None:
            self._reported.clear()
            logger.info("the database answers", extra={"event": "database_recovered"})
        self._probed = trouble
