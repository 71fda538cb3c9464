"""Connects to Postgres at any address of its host name. One limit covers all addresses.

asyncpg leaves the addresses to the event loop, which tries them one after another. The first address that drops packets
uses up the limit. So asyncpg gets an event loop with another `create_connection`. asyncpg still gets the server's name,
which it needs to check the certificate.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import asyncpg
from aiohappyeyeballs import start_connection

from runtime.connecting import STAGGER
from runtime.lookup import AddressInfo
from service.database.server_refusals import lasting_refusal
from service.outgoing import Outgoing, outgoing

CONNECT_LIMIT = 10.0
"""Seconds for a usable connection: the lookup, all addresses, TLS and the login together."""
MIN_ATTEMPT = 0.5
"""Seconds that must be left of the limit for another attempt."""
WRITABLE_LIMIT = 2.0
"""Seconds for the search for a host that accepts writes, if the first connection is to a host that accepts none."""
WRITABLE = "select not pg_catalog.pg_is_in_recovery() and not current_setting('transaction_read_only')::boolean"

_connect: Callable[..., Awaitable["asyncpg.Connection[asyncpg.Record]"]] = asyncpg.connect


async def open_connection(
    dsn: str, *, timeout: float = CONNECT_LIMIT, **options: Any
) -> "asyncpg.Connection[asyncpg.Record]":
    """Open a connection like `asyncpg.connect`; also the `connect` of an asyncpg pool.

    If the DSN names several hosts and has no `target_session_attrs`, a host that accepts writes is preferred. While no
    host accepts writes, the connection is to the first host that answers, because reads still work there.

    If there are several addresses and the connected address stays silent for half of the remaining time, a new attempt
    begins with the other addresses.

    Args:
        dsn: address of the database.
        timeout: seconds for everything.
        options: passed on to asyncpg, except `loop`, which is replaced.

    Raises:
        TimeoutError: there was no connection in time.
        OSError: no address accepted the connection.
        ServerRefused: the server refuses until a setting is changed.
        asyncpg.PostgresError: the server refused for now.
    """
    ends_at = asyncio.get_running_loop().time() + timeout
    hosts, chosen = _hosts(dsn)
    connection = await _open(dsn, ends_at, hosts, options)
    if hosts == 1 or chosen:
        return connection
    try:
        async with asyncio.timeout_at(ends_at):
            accepts_writes = await connection.fetchval(WRITABLE)
        writable = None if accepts_writes else await _open_writable(dsn, ends_at, hosts, options)
    except BaseException:
        connection.terminate()
        raise
    if writable is None:
        return connection
    connection.terminate()
    return writable


async def _open_writable(
    dsn: str, ends_at: float, hosts: int, options: dict[str, Any]
) -> "asyncpg.Connection[asyncpg.Record] | None":
    """A connection to a host that accepts writes; None if no such host is found in time."""
    ends_at = min(ends_at, asyncio.get_running_loop().time() + WRITABLE_LIMIT)
    try:
        return await _open(dsn, ends_at, hosts, {**options, "target_session_attrs": "read-write"})
    except (asyncpg.TargetServerAttributeNotMatched, asyncpg.PostgresError, OSError):
        return None


async def _open(dsn: str, ends_at: float, hosts: int, options: dict[str, Any]) -> "asyncpg.Connection[asyncpg.Record]":
    running = asyncio.get_running_loop()
    silent_hosts: set[tuple[str, int]] = set()
    while True:
        attempt = asyncio.timeout_at(ends_at)
        loop = _AnyAddressLoop(running, outgoing(), attempt, ends_at, hosts, silent_hosts)
        try:
            async with attempt:
                connection = await _connect(dsn, **{**options, "loop": loop, "timeout": None})
        except TimeoutError:
            if not loop.mark_silent() or ends_at - running.time() < MIN_ATTEMPT:
                raise
        except (asyncpg.PostgresError, OSError) as error:
            if (refused := lasting_refusal(error)) is not None:
                raise refused from error
            raise
        else:
            loop.mark_answered()
            return connection


connect_of_pool: Any = open_connection
"""`open_connection` as the parameter `connect` of `asyncpg.create_pool`.

It is typed `Any`, because the type of that parameter names every option.
"""


class _AnyAddressLoop:
    """The event loop as asyncpg uses it for one connection and for its cancel requests."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outgoing: Outgoing,
        attempt: asyncio.Timeout,
        ends_at: float,
        hosts: int,
        silent_hosts: set[tuple[str, int]],
    ) -> None:
        self._loop = loop
        self._outgoing = outgoing
        self._attempt = attempt
        self._ends_at = ends_at
        self._hosts = hosts
        self._silent_hosts = silent_hosts
        self._host = "", 0
        self._address: AddressInfo | None = None
        self._has_answered = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def mark_answered(self) -> None:
        """Record a successful connection.

        Later connections of this loop, such as a cancel request, use the same address.
        """
        self._has_answered = True
        if self._address is not None:
            self._outgoing.silent.discard(self._address[4])

    def mark_silent(self) -> bool:
        """Record that the last address was silent; returns whether there was an address."""
        if self._address is None:
            return False
        self._outgoing.silent.add(self._address[4])
        self._silent_hosts.add(self._host)
        return True

    async def create_connection(self, factory: Any, host: str, port: int, **options: Any) -> Any:
        """Connect like the loop's method, to any address of the host."""
        if self._has_answered and self._address is not None:
            connected = await start_connection([self._address])
        else:
            connected = await self._connected(host, port)
        try:
            if "ssl" in options:
                options.setdefault("server_hostname", host)
            return await self._loop.create_connection(factory, sock=connected, **options)
        except BaseException:
            connected.close()
            raise

    async def _connected(self, host: str, port: int) -> socket.socket:
        """A socket connected to one of the host's addresses.

        Raises:
            TimeoutError: no address answered within this host's share of the limit, or the host was silent before and
                another host is left.
            OSError: no address accepted the connection.
        """
        if (host, port) in self._silent_hosts and len(self._silent_hosts) < self._hosts:
            raise TimeoutError
        left = self._ends_at - self._loop.time()
        async with asyncio.timeout(left if self._hosts == 1 else left / self._hosts):
            found = await self._outgoing.lookups.addresses(host, port)
            addresses = sorted(found, key=lambda info: info[4] in self._outgoing.silent)
            connected = await _start(addresses, min(STAGGER, left / (len(addresses) + 1)))
        peer = connected.getpeername()
        self._host = host, port
        self._address = next((info for info in addresses if info[4] == peer), None)
        if self._hosts > 1 or any(info[4] not in self._outgoing.silent and info[4] != peer for info in addresses):
            self._attempt.reschedule(self._loop.time() + (self._ends_at - self._loop.time()) / 2)
        return connected


async def _start(addresses: Sequence[AddressInfo], stagger: float) -> socket.socket:
    try:
        return await start_connection(addresses, happy_eyeballs_delay=stagger)
    except TimeoutError:
        raise
    except OSError as error:  # its text may contain one address, or every address with its error
        why = os.strerror(error.errno) if error.errno else "every address of the name failed"
        raise OSError(error.errno or 0, why) from error
    except RuntimeError as error:  # uvloop raises this for an address that its loop cannot use
        raise OSError(0, str(error)) from None


def _hosts(dsn: str) -> tuple[int, bool]:
    """The number of hosts in a DSN, and whether the DSN has `target_session_attrs`."""
    parts = urlsplit(dsn)
    options = dict(parse_qsl(parts.query))
    named = parts.netloc.rpartition("@")[2] or options.get("host", "")
    return named.count(",") + 1, "target_session_attrs" in options
