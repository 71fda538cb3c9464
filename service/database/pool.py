"""The connections of one store: opened when needed, shared, and closed when a fault may stay with the session.

Each place is a pool of one connection. So a place that is connected can be preferred to one that is not, which a larger
pool of asyncpg does not offer: where the server or a pooler allows fewer connections than there are places, a caller
waits for one that is open already.
"""

import asyncio
import random
import re
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TypeAlias

import asyncpg

from service.database.connection import Connection
from service.database.pooler import LOST_STATEMENTS, check_sessions
from service.database.server_refusals import POOLED, ServerRefused
from service.database.write_watch import READ_ONLY

ACQUIRE_LIMIT = 10.0
"""Seconds that a caller waits for a connection."""
CHECK_LIMIT = 1.0
"""Seconds that a check of the sessions may take."""
SECOND_CONNECTION_LIMIT = 1.0
"""Seconds that a check of the sessions waits for another connection."""
GIVEN_UP_PAUSE = 0.5
"""Seconds from a connection that was closed to give room to an attempt to have another one in its place."""
RELEASE_LIMIT = 2.0
"""Seconds that the cancelled statement of a connection may take to end; the connection is closed after that."""
CONNECT_PAUSE = 0.1, 1.0
"""Seconds from a connection that the server refused for want of room to the next attempt: at first, and at most."""

SOUND_CLASSES = ("22", "23", "42", "P0")
"""Classes of SQLSTATE that are about values, constraints, names or a function's own error: the session is sound."""
SESSION_FAULTS = ("42501", "42P05")
"""SQLSTATEs of those classes that may stay with the session: rights of a role that was set, a statement's name."""
TOO_MANY_CONNECTIONS = "53300"
NO_ROOM = re.compile(
    r"too many (clients|connections)"
    r"|max(imum)?[ _-]?(number of )?(db |pool )?(client|connection)s?\b.*(reach|limit|exceed)"
    r"|max_\w*conn|clients reached|no more connections|connection (limit|slots)|connections? exceeded",
    re.IGNORECASE,
)
"""What poolers say, each under an SQLSTATE of its own, where they have no room for another connection."""

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Pooled: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


def may_stay(error: asyncpg.PostgresError) -> bool:
    """Whether the cause of an error may be a state of the session, which another session would not have.

    A session that began while the server was read-only stays read-only; a setting, a role, a prepared statement, a
    standby that a session has ended up at, a cache that is out of date likewise.
    """
    state = error.sqlstate or ""
    return state in SESSION_FAULTS or not state.startswith(SOUND_CLASSES)


def is_overload(error: BaseException | None) -> bool:
    """Whether the server, or a pooler before it, refused a connection only because there are too many."""
    if not isinstance(error, asyncpg.PostgresError):
        return False
    return error.sqlstate == TOO_MANY_CONNECTIONS or NO_ROOM.search(str(error)) is not None


class Room:
    """The connections of one process, which give each other room where there is none for all of them."""

    def __init__(self) -> None:
        self._members: weakref.WeakSet[Connections] = weakref.WeakSet()
        self.refused = False
        """Whether a pooler that gives no sessions was found before the database: nobody gets a connection."""
        self.suspected = False
        """Whether an error looks like one of such a pooler's."""

    def add(self, connections: "Connections") -> None:
        """Let these take part."""
        self._members.add(connections)

    async def make(self, asking: "Connections | None" = None) -> bool:
        """Close a connection of each of the others: one that is not in use, or the next one that comes free.

        Returns whether there is any.
        """
        return any([await member.spare_one() for member in list(self._members) if member is not asking])


class Connections:
    """At most as many connections as there are `places`.

    Args:
        places: pools of one connection each, none of which has to be connected.
        room: shared with the other connections of this process.
        uniform: as `random.uniform`; spreads the attempts of many tasks.
    """

    def __init__(
        self, places: Sequence[Pool], room: Room, *, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._places = places
        self.room = room
        self._uniform = uniform
        self._free = list(places)
        self._turn = asyncio.Semaphore(len(places))
        self._queue = asyncio.Lock()
        self._changed = asyncio.Event()
        self._pause = CONNECT_PAUSE[0]
        self._no_room_until = 0.0
        self._spare_next = False
        self.answered_at: float | None = None
        """When the server last did what it was asked, by the event loop's clock."""
        room.add(self)

    async def close(self) -> None:
        """Close every connection, once its statement has ended."""
        await asyncio.gather(*(place.close() for place in self._places))

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
            if self.room.refused and not to_check:
                raise ServerRefused(POOLED)
            place, connection = await self._acquire()
            try:
                yield connection
                self.answered_at = asyncio.get_running_loop().time()
            except asyncpg.PostgresError as error:
                self.room.suspected = self.room.suspected or error.sqlstate in LOST_STATEMENTS
                if may_stay(error):
                    _terminate(connection)
                if error.sqlstate == READ_ONLY:  # the others may have begun at the same time
                    await self.renew()
                raise
            finally:
                try:
                    await self._release(place, connection)
                finally:
                    self._put_back(place)

    async def check(self) -> None:
        """Find out whether connections are sessions, if there is room for two of them.

        Raises:
            ServerRefused: they are not, and nobody in this room gets a connection before a check goes well.
        """
        if len(self._places) < 2:
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
                self.room.refused = True
                raise
            except TimeoutError:  # such as where a session pooler has one session for us
                _terminate(other)
                return
            self.room.refused = self.room.suspected = False

    async def renew(self) -> None:
        """Let every connection be closed before its next use."""
        for place in self._places:
            await place.expire_connections()

    async def spare_one(self) -> bool:
        """Close a connection that is not in use, or else the next one that comes free; returns whether there is any."""
        connected = [place for place in self._free if place.get_size()]
        if not connected:
            self._spare_next = self.is_connected
            return self._spare_next
        place = connected[0]
        self._free.remove(place)
        self._give_way()
        try:
            connection = await place.acquire()
            await connection.close()
            await place.release(connection)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            pass  # it is closed
        finally:
            self._put_back(place)
        return True

    @property
    def is_connected(self) -> bool:
        """Whether any connection is open."""
        return any(place.get_size() for place in self._places)

    async def _acquire(self) -> tuple[Pool, Pooled]:
        refused: asyncpg.PostgresError | None = None
        try:
            async with asyncio.timeout(ACQUIRE_LIMIT):
                while True:
                    place = await self._place()
                    try:
                        connection = await place.acquire()
                    except asyncpg.PostgresError as error:
                        self._put_back(place)
                        if not is_overload(error):
                            raise
                        refused = error
                        await self._no_room()
                    except BaseException:
                        self._put_back(place)
                        raise
                    else:
                        self._pause = CONNECT_PAUSE[0]
                        return place, connection
        except TimeoutError:
            if refused is not None:
                raise refused from None
            raise

    async def _place(self) -> Pool:
        """A free place: one that is connected if there is one, else one that may be connected now.

        The caller that has waited longest is the first: else one that asks again and again would starve the others.
        """
        async with self._queue:
            loop = asyncio.get_running_loop()
            while True:
                connected = [place for place in self._free if place.get_size()]
                wait = self._no_room_until - loop.time()
                if connected or (self._free and wait <= 0):
                    place = (connected or self._free)[-1]
                    self._free.remove(place)
                    return place
                try:
                    async with asyncio.timeout(wait if self._free else None):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    async def _no_room(self) -> None:
        if not self.is_connected and await self.room.make(self):  # there is none of our own to wait for
            self._pause = CONNECT_PAUSE[0]
        self._no_room_until = asyncio.get_running_loop().time() + self._pause * self._uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, CONNECT_PAUSE[1])

    def _give_way(self) -> None:
        """Let the room that comes free be taken by the one that it is made for."""
        self._no_room_until = max(self._no_room_until, asyncio.get_running_loop().time() + GIVEN_UP_PAUSE)

    async def _release(self, place: Pool, connection: Pooled) -> None:
        if self._spare_next:
            self._spare_next = False
            self._give_way()
            _terminate(connection)
        await place.release(connection, timeout=RELEASE_LIMIT)

    def _put_back(self, place: Pool) -> None:
        self._free.append(place)
        self._changed.set()
        self._changed = asyncio.Event()


def _terminate(connection: Connection) -> None:
    with suppress(asyncpg.InterfaceError):  # it is closed already, by the server
        connection.terminate()


async def open_connections(
    many: int, make_pool: Callable[[], Awaitable[Pool]], room: Room, *, at_once: bool
) -> Connections:
    """Connections at so many places, one of them connected if `at_once`.

    Raises:
        asyncpg.PostgresError, OSError: that one could not be made.
    """
    connections = Connections([await make_pool() for _ in range(many)], room)
    if at_once:
        try:
            async with connections.connection(to_check=True):  # a check may have to follow
                pass
        except BaseException:
            await connections.close()
            raise
    return connections
