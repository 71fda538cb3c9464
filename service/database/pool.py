"""The connections of one store: opened when needed, shared, and closed when a fault may stay with the session.

Each slot is a pool of one connection. So a slot that is connected can be preferred to one that is not, which a larger
pool of asyncpg does not offer: where the server or a pooler allows fewer connections than there are slots, a caller
waits for one that is open already.
"""

import asyncio
import random
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TypeAlias

import asyncpg

from runtime.backoff import Backoff
from service.database.connection import Connection
from service.database.pooler import LOST_STATEMENTS, check_sessions
from service.database.server_refusals import TRANSACTION_POOLER_ERROR, ServerRefused, is_overload
from service.database.write_watch import READ_ONLY

ACQUIRE_LIMIT = 10.0
"""Seconds that a caller waits for a connection."""
CHECK_LIMIT = 1.0
"""Seconds that a check of the sessions may take."""
SECOND_CONNECTION_LIMIT = 1.0
"""Seconds that a check of the sessions waits for another connection."""
GIVEN_UP_PAUSE = 0.5
"""Seconds from a connection that was closed to give room to an attempt to have another one in its slot."""
RELEASE_LIMIT = 2.0
"""Seconds that the cancelled statement of a connection may take to end; the connection is closed after that."""
CONNECT_PAUSE = 0.1, 1.0
"""Seconds from a connection that the server refused for want of room to the next attempt: at first, and at most."""

SOUND_CLASSES = ("22", "23", "42", "P0")
"""Classes of SQLSTATE that are about values, constraints, names or a function's own error: the session is sound."""
SESSION_FAULTS = ("42501", "42P05")
"""SQLSTATEs of those classes that may stay with the session: rights of a role that was set, a statement's name."""

Slot: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Pooled: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


def may_persist(error: asyncpg.PostgresError) -> bool:
    """Whether the cause of an error may be a state of the session, which another session would not have.

    A session that began while the server was read-only stays read-only; a setting, a role, a prepared statement, a
    standby that a session has ended up at, a cache that is out of date likewise.
    """
    state = error.sqlstate or ""
    return state in SESSION_FAULTS or not state.startswith(SOUND_CLASSES)


class PoolGroup:
    """The connections of one process, which give each other room where there is none for all of them."""

    def __init__(self) -> None:
        self._members: weakref.WeakSet[ConnectionPool] = weakref.WeakSet()
        self.refused = False
        """Whether a pooler that gives no sessions was found before the database: nobody gets a connection."""
        self.suspected = False
        """Whether an error looks like one of such a pooler's."""

    def add(self, connections: "ConnectionPool") -> None:
        """Let these take part."""
        self._members.add(connections)

    async def free_connection(self, asking: "ConnectionPool | None" = None) -> bool:
        """Close a connection of each of the others: one that is not in use, or the next one that comes free.

        Returns whether there is any.
        """
        return any([await member.give_up_connection() for member in list(self._members) if member is not asking])


class ConnectionPool:
    """At most as many connections as there are `slots`.

    Args:
        slots: pools of one connection each, none of which has to be connected.
        group: shared with the other connections of this process.
        uniform: as `random.uniform`; spreads the attempts of many tasks.
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
        """The server's refusal of another connection, from the refusal until a caller gets a connection."""
        self.answered_at: float | None = None
        """When the server last did what it was asked, by the event loop's clock."""
        group.add(self)

    async def close(self) -> None:
        """Close every connection, once its statement has ended."""
        await asyncio.gather(*(slot.close() for slot in self._slots))

    @asynccontextmanager
    async def connection(self, *, to_check: bool = False) -> AsyncIterator[Connection]:
        """A connection for the length of the block; closed after an error whose cause may stay with the session.

        `to_check`: also where such a pooler was found.

        Raises:
            ServerRefused: a pooler that gives no sessions was found, and is not gone.
            TimeoutError: every connection was in use for `ACQUIRE_LIMIT` seconds.
            asyncpg.PostgresError: the server refused a new one, for want of room only after `ACQUIRE_LIMIT` seconds.
        """
        async with self._turn:
            if self.group.refused and not to_check:
                raise ServerRefused(TRANSACTION_POOLER_ERROR)
            slot, connection = await self._acquire()
            try:
                yield connection
                self.answered_at = asyncio.get_running_loop().time()
            except asyncpg.PostgresError as error:
                self.group.suspected = self.group.suspected or error.sqlstate in LOST_STATEMENTS
                if may_persist(error):
                    _terminate(connection)
                if error.sqlstate == READ_ONLY:  # the others may have begun at the same time
                    await self.renew()
                raise
            finally:
                try:
                    await self._release(slot, connection)
                finally:
                    self._return_slot(slot)

    async def check(self) -> None:
        """Find out whether connections are sessions, if there is room for two of them.

        Raises:
            ServerRefused: they are not, and nobody in this room gets a connection before a check goes well.
        """
        if len(self._slots) < 2:
            return
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(self.connection(to_check=True))
            try:
                async with asyncio.timeout(SECOND_CONNECTION_LIMIT):
                    other = await stack.enter_async_context(self.connection(to_check=True))
            except (TimeoutError, asyncpg.PostgresError):
                return
            try:
                async with asyncio.timeout(CHECK_LIMIT):
                    await check_sessions(one, other)
            except ServerRefused:
                self.group.refused = True
                raise
            except TimeoutError:  # such as where a session pooler has one session for us
                _terminate(other)
                return
            self.group.refused = self.group.suspected = False

    async def renew(self) -> None:
        """Let every connection be closed before its next use."""
        for slot in self._slots:
            await slot.expire_connections()

    async def give_up_connection(self) -> bool:
        """Close a connection that is not in use, or else the next one that comes free; returns whether there is any."""
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
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            pass  # it is closed
        finally:
            self._return_slot(slot)
        return True

    @property
    def is_connected(self) -> bool:
        """Whether any connection is open."""
        return any(slot.get_size() for slot in self._slots)

    async def _acquire(self) -> tuple[Slot, Pooled]:
        refused: asyncpg.PostgresError | None = None  # to this caller
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
        """A free slot: one that is connected if there is one, else one that may be connected now.

        The caller that has waited longest is the first: else one that asks again and again would starve the others.
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
        if not self.is_connected and await self.group.free_connection(self):  # there is none of our own to wait for
            self._backoff.reset()
        self._connect_after = asyncio.get_running_loop().time() + self._backoff.next()

    def _pause_connecting(self) -> None:
        """Let the room that comes free be taken by the one that it is made for."""
        self._connect_after = max(self._connect_after, asyncio.get_running_loop().time() + GIVEN_UP_PAUSE)

    async def _release(self, slot: Slot, connection: Pooled) -> None:
        if self._give_up_next:
            self._give_up_next = False
            self._pause_connecting()
            _terminate(connection)
        await slot.release(connection, timeout=RELEASE_LIMIT)

    def _return_slot(self, slot: Slot) -> None:
        self._free.append(slot)
        self._changed.set()
        self._changed = asyncio.Event()


def _terminate(connection: Connection) -> None:
    with suppress(asyncpg.InterfaceError):  # it is closed already, by the server
        connection.terminate()


async def open_pool(
    count: int, make_slot: Callable[[], Awaitable[Slot]], group: PoolGroup, *, at_once: bool
) -> ConnectionPool:
    """ConnectionPool at so many slots, one of them connected if `at_once`.

    Raises:
        asyncpg.PostgresError, OSError: that one could not be made.
    """
    connections = ConnectionPool([await make_slot() for _ in range(count)], group)
    if at_once:
        try:
            async with connections.connection(to_check=True):  # a check may have to follow
                pass
        except BaseException:
            await connections.close()
            raise
    return connections
