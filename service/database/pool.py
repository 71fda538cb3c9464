"""The connections of one store: opened when needed, shared, and closed after a fault that may persist in the session.

Each slot is an asyncpg pool of one connection, so that a connected slot can be preferred to an unconnected one. Where
the server or a pooler allows fewer connections than there are slots, a caller waits for a connection that is open
already.
"""

import asyncio
import random
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from math import inf
from typing import TypeAlias

import asyncpg

from runtime.backoff import Backoff
from service.database.connection import DRIVER_ERRORS, Connection, StoreError, terminate
from service.database.pooler import LOST_STATEMENTS, check_sessions
from service.database.server_refusals import TRANSACTION_POOLER_ERROR, ServerRefused, is_overload
from service.database.write_watch import READ_ONLY

ACQUIRE_LIMIT = 10.0
"""Seconds that a caller waits for a connection, after its turn has come."""
CHECK_LIMIT = 1.0
"""Seconds that a check of the sessions may take."""
SECOND_CONNECTION_LIMIT = 1.0
"""Seconds that a check of the sessions waits for its second connection."""
GIVEN_UP_PAUSE = 0.5
"""Seconds for which a pool opens no connection after it gave one up to another pool."""
RELEASE_LIMIT = 2.0
"""Seconds that a cancelled statement may take to end. After that its connection is closed."""
CONNECT_PAUSE = 0.1, 1.0
"""Seconds from a refusal for too many connections to the next attempt: first pause and longest pause."""

SOUND_CLASSES = ("22", "23", "42", "P0")
"""SQLSTATE classes about values, constraints, names, or a function's own error: the session is not at fault."""
SESSION_FAULTS = ("42501", "42P05")
"""SQLSTATEs of `SOUND_CLASSES` whose cause may still persist in the session: a role that was set, statement names."""

Slot: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
PooledConnection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


def may_persist(error: asyncpg.PostgresError) -> bool:
    """Whether the cause of an error may be in the session's state, so that another session would not have it.

    A session that began while the server was read-only stays read-only. A setting, a role, a prepared statement, a
    stale cache and a connection to a standby also last as long as the session.
    """
    state = error.sqlstate or ""
    return state in SESSION_FAULTS or not state.startswith(SOUND_CLASSES)


class PoolGroup:
    """The connection pools of one process. A pool that gets no connection takes one from another pool of the group."""

    def __init__(self) -> None:
        self._members: weakref.WeakSet[ConnectionPool] = weakref.WeakSet()
        self.pooler_found = False
        """Whether a transaction pooler was found in front of the database. Then no caller gets a connection."""
        self.pooler_suspected = False
        """Whether an error occurred that a transaction pooler typically causes."""

    def add(self, pool: "ConnectionPool") -> None:
        """Add a pool to the group."""
        self._members.add(pool)

    async def free_connection(self, asking: "ConnectionPool | None" = None) -> bool:
        """Ask every other pool to close one connection: an idle one, or the next one that is released.

        Returns whether any pool has a connection to close.
        """
        return any([await member.give_up_connection() for member in list(self._members) if member is not asking])


class ConnectionPool:
    """A pool of connections, at most one for each slot.

    Args:
        slots: asyncpg pools of one connection each; none has to be connected.
        group: the pools of this process.
        uniform: draws a number between two bounds, like `random.uniform`; spreads the attempts of many tasks.
    """

    def __init__(
        self, slots: Sequence[Slot], group: PoolGroup, *, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._slots = slots
        self.group = group
        self._free = list(slots)
        self._turn = asyncio.Semaphore(len(slots))
        self._queue = asyncio.Lock()
        self._changed = asyncio.Event()
        self._backoff = Backoff(*CONNECT_PAUSE, uniform=uniform)
        self._connect_after = 0.0
        self._give_up_next = False
        self.refused: asyncpg.PostgresError | None = None
        """The server's refusal of another connection. It is None again once a caller gets a connection."""
        self.answered_at: float | None = None
        """Time of the server's last successful answer, by the event loop's clock."""
        self._in_use: dict[PooledConnection, int] = {}
        self._answered_before_replacement: float | None = -inf
        group.add(self)

    async def close(self) -> None:
        """Close every connection after its statement has ended."""
        await asyncio.gather(*(slot.close() for slot in self._slots))

    @asynccontextmanager
    async def connection(self, *, during_check: bool = False) -> AsyncIterator[Connection]:
        """A connection for the block. It is closed after an error that may persist in the session.

        Args:
            during_check: give a connection even if a transaction pooler was found.

        Raises:
            ServerRefused: a transaction pooler was found, and no check has succeeded since; or the server refuses
                every new connection until a setting is changed.
            TimeoutError: this caller got no connection within `ACQUIRE_LIMIT` seconds after its turn had come.
            OSError: a new connection could not be made.
            asyncpg.PostgresError: the server refused a new connection. A refusal for too many connections is raised
                only after `ACQUIRE_LIMIT` seconds.
        """
        async with self._turn:
            if self.group.pooler_found and not during_check:
                raise ServerRefused(TRANSACTION_POOLER_ERROR)
            slot, connection = await self._acquire()
            try:
                self._in_use[connection] = connection.get_server_pid()
                yield connection
                self.answered_at = asyncio.get_running_loop().time()
            except asyncpg.PostgresError as error:
                await self._after_error(error, connection)
                raise
            except StoreError as error:
                # Another connection's context has converted the error, so it is unknown which connection failed. The
                # refusal of a further connection is not this connection's fault.
                if isinstance(cause := error.__cause__, asyncpg.PostgresError) and not is_overload(cause):
                    await self._after_error(cause, connection)
                raise
            finally:
                self._in_use.pop(connection, None)
                try:
                    await self._release(slot, connection)
                finally:
                    self._return_slot(slot)

    async def check(self) -> None:
        """Check that each connection has its own session, if the server allows two connections.

        Raises:
            ServerRefused: the connections share sessions. No pool of the group gives a connection until a check
                succeeds.
        """
        if len(self._slots) < 2:
            return
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(self.connection(during_check=True))
            try:
                async with asyncio.timeout(SECOND_CONNECTION_LIMIT):
                    other = await stack.enter_async_context(self.connection(during_check=True))
            except (TimeoutError, asyncpg.PostgresError):
                return
            try:
                async with asyncio.timeout(CHECK_LIMIT):
                    await check_sessions(one, other)
            except ServerRefused:
                self.group.pooler_found = True
                raise
            except TimeoutError:  # such as behind a session pooler with one session for this task
                terminate(other)
                return
            self.group.pooler_found = self.group.pooler_suspected = False

    async def renew(self) -> None:
        """Close every connection before its next use."""
        for slot in self._slots:
            await slot.expire_connections()

    def waiting(self) -> dict[PooledConnection, int]:
        """The connections in use, each with the process id of its session.

        The result is empty if connections were replaced and the server has not answered since. Behind a pooler the
        process ids are not the real ones, and connections that wait for a lock would otherwise be replaced again and
        again.
        """
        if self.answered_at == self._answered_before_replacement:
            return {}
        return dict(self._in_use)

    async def replace(self, dead: set[PooledConnection]) -> None:
        """Close the dead connections, so that their callers get an error, and all idle ones, which may be dead."""
        self._answered_before_replacement = self.answered_at
        for connection in self._in_use.keys() & dead:
            terminate(connection)
        while (slot := next((slot for slot in self._free if slot.get_size()), None)) is not None:
            self._free.remove(slot)
            try:
                idle = await slot.acquire()
                terminate(idle)
                await slot.release(idle)
            except DRIVER_ERRORS:
                pass  # the connection is closed
            finally:
                self._return_slot(slot)

    async def give_up_connection(self) -> bool:
        """Close an idle connection, or the next one that is released; returns whether any connection is open."""
        connected = [slot for slot in self._free if slot.get_size()]
        if not connected:
            self._give_up_next = self.is_connected
            return self._give_up_next
        slot = connected[0]
        self._free.remove(slot)
        self._pause_connecting()
        try:
            connection = await slot.acquire()
            await connection.close()
            await slot.release(connection)
        except DRIVER_ERRORS:
            pass  # the connection is closed
        finally:
            self._return_slot(slot)
        return True

    @property
    def is_connected(self) -> bool:
        """Whether any connection is open."""
        return any(slot.get_size() for slot in self._slots)

    async def _acquire(self) -> tuple[Slot, PooledConnection]:
        refused: asyncpg.PostgresError | None = None  # the last refusal of a connection to this caller
        try:
            async with asyncio.timeout(ACQUIRE_LIMIT):
                while True:
                    slot = await self._free_slot()
                    try:
                        connection = await slot.acquire()
                    except asyncpg.PostgresError as error:
                        self._return_slot(slot)
                        if not is_overload(error):
                            raise
                        refused = self.refused = error
                        await self._record_overload()
                    except BaseException:
                        self._return_slot(slot)
                        raise
                    else:
                        self._backoff.reset()
                        self.refused = None
                        return slot, connection
        except TimeoutError:
            if refused is not None:
                raise refused from None
            raise

    async def _free_slot(self) -> Slot:
        """Take a free slot: a connected slot if there is one, else a slot that may connect now.

        Callers take turns in order. Without the order, a caller that asks again and again would starve the others.
        """
        async with self._queue:
            loop = asyncio.get_running_loop()
            while True:
                connected = [slot for slot in self._free if slot.get_size()]
                wait = self._connect_after - loop.time()
                if connected or (self._free and wait <= 0):
                    slot = (connected or self._free)[-1]
                    self._free.remove(slot)
                    return slot
                try:
                    async with asyncio.timeout(wait if self._free else None):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    async def _record_overload(self) -> None:
        if not self.is_connected and await self.group.free_connection(self):  # this pool has no open connection
            self._backoff.reset()
        self._connect_after = asyncio.get_running_loop().time() + self._backoff.next()

    def _pause_connecting(self) -> None:
        """Leave the freed connection to the pool that asked for it."""
        self._connect_after = max(self._connect_after, asyncio.get_running_loop().time() + GIVEN_UP_PAUSE)

    async def _after_error(self, error: asyncpg.PostgresError, connection: Connection) -> None:
        self.group.pooler_suspected = self.group.pooler_suspected or error.sqlstate in LOST_STATEMENTS
        if may_persist(error):
            terminate(connection)
        if error.sqlstate == READ_ONLY:  # the other sessions may be read-only too
            await self.renew()

    async def _release(self, slot: Slot, connection: PooledConnection) -> None:
        if self._give_up_next:
            self._give_up_next = False
            self._pause_connecting()
            terminate(connection)
        # A connection that cannot be reset is closed. The error must not replace the result or the error of the block.
        with suppress(*DRIVER_ERRORS):
            await slot.release(connection, timeout=RELEASE_LIMIT)

    def _return_slot(self, slot: Slot) -> None:
        self._free.append(slot)
        self._changed.set()
        self._changed = asyncio.Event()


async def open_pool(
    count: int, make_slot: Callable[[], Awaitable[Slot]], group: PoolGroup, *, at_once: bool
) -> ConnectionPool:
    """A pool of `count` slots, one of them connected if `at_once`.

    Raises:
        asyncpg.PostgresError, OSError: the connection could not be made.
    """
    pool = ConnectionPool([await make_slot() for _ in range(count)], group)
    if at_once:
        try:
            # The caller may check the sessions next, so this connects even if a transaction pooler was found before.
            async with pool.connection(during_check=True):
                pass
        except BaseException:
            await pool.close()
            raise
    return pool
