"""Name lookups that callers share and that never delay the end of the process.

`getaddrinfo` cannot be cancelled. asyncio and uvloop run it in a thread pool: lookups that hang occupy all threads of
the pool, and the end of the process waits for them. Here each lookup runs in a daemon thread, and at most one lookup of
the same host and port is under way. A lookup continues when its callers are cancelled.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EAGAIN
from threading import Thread
from typing import Any

AddressInfo = tuple[int, int, int, str, Any]
"""One result of `socket.getaddrinfo`: family, type, protocol, canonical name, socket address."""
GetAddressInfo = Callable[[str, int], Sequence[AddressInfo]]
"""A blocking lookup of a host and a port. It raises OSError if the name has no address."""

MAX_RESULT_AGE = 30.0
"""Maximum age, in seconds, at which a result that came too late for its callers may still be used."""


def system_lookup(host: str, port: int) -> Sequence[AddressInfo]:
    """The addresses that the system's resolver has for TCP connections to the host and port."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


@dataclass(eq=False, slots=True)
class _Lookup:
    """A lookup under way.

    If `outdated`, the server may have changed since the lookup began, so the lookup's result is not used.
    """

    waiters: list[asyncio.Future[Sequence[AddressInfo]]] = field(default_factory=list)
    outdated: bool = False


class Lookups:
    """The name lookups of one event loop.

    A result goes to all callers that wait for it. If no caller waits any more, the next caller gets the result. A
    result is not kept after its use, so a change of the name's addresses takes effect.

    Args:
        look_up: the blocking lookup, called in a thread.
        clock: monotonic seconds.
    """

    def __init__(self, look_up: GetAddressInfo = system_lookup, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._look_up = look_up
        self._clock = clock
        self._under_way: dict[tuple[str, int], _Lookup] = {}
        self._kept: dict[tuple[str, int], tuple[Sequence[AddressInfo], float]] = {}

    async def addresses(self, host: str, port: int) -> Sequence[AddressInfo]:
        """The addresses of a host, at least one; an IP address needs no lookup.

        The call may be cancelled at any time. The lookup continues for the other callers and for the next caller.

        Raises:
            OSError: the name has no address, or the lookup failed.
        """
        if (numeric := _numeric(host, port)) is not None:
            return numeric
        key = (host, port)
        kept = self._kept.pop(key, None)
        if kept is not None and self._clock() - kept[1] < MAX_RESULT_AGE:
            return kept[0]
        lookup = self._under_way.get(key)
        if lookup is None:
            lookup = _Lookup()
            self._begin(key, lookup)
        waiter: asyncio.Future[Sequence[AddressInfo]] = asyncio.get_running_loop().create_future()
        lookup.waiters.append(waiter)
        return await waiter

    def pending(self, host: str, port: int) -> bool:
        """Whether a lookup of the host and port is under way."""
        return (host, port) in self._under_way

    def forget(self, host: str, port: int) -> None:
        """Discard the lookups of the host and port that have begun so far, because the server may have changed."""
        self._kept.pop((host, port), None)
        if (lookup := self._under_way.get((host, port))) is not None:
            lookup.outdated = True

    def _begin(self, key: tuple[str, int], lookup: _Lookup) -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            try:
                result: Sequence[AddressInfo] | OSError = self._look_up(*key)
            except OSError as error:
                result = error
            except Exception as error:  # noqa: BLE001 - such as UnicodeError for a name that cannot be encoded
                result = socket.gaierror(socket.EAI_NONAME, f"the name cannot be looked up: {error}")
            with suppress(RuntimeError):  # the loop is closed, so no caller waits
                loop.call_soon_threadsafe(self._ended, key, lookup, result)

        try:
            Thread(target=work, name=f"lookup of {key[0]}", daemon=True).start()
        except RuntimeError as error:
            raise OSError(EAGAIN, f"no thread for a name lookup: {error}") from None
        self._under_way[key] = lookup

    def _ended(self, key: tuple[str, int], lookup: _Lookup, result: Sequence[AddressInfo] | OSError) -> None:
        del self._under_way[key]
        waiters = [waiter for waiter in lookup.waiters if not waiter.done()]
        if lookup.outdated:
            if not waiters:
                return
            try:
                self._begin(key, _Lookup(waiters))
            except OSError as error:
                result = error
            else:
                return
        if isinstance(result, OSError):
            for waiter in waiters:
                waiter.set_exception(type(result)(*result.args))  # one copy per waiter, since raising adds a traceback
        elif waiters:
            for waiter in waiters:
                waiter.set_result(result)
        else:
            self._kept[key] = (result, self._clock())


def _numeric(host: str, port: int) -> Sequence[AddressInfo] | None:
    """The result for a host that is an IP address; None for a name."""
    try:
        return socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )
    except (OSError, UnicodeError, ValueError):
        return None
