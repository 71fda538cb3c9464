"""Shared parts of outgoing connections: name lookups, and HTTP sessions that try every address of a name.

A lookup that hangs delays neither other lookups nor the end of the process. An address that drops packets does not
delay the next address for long.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import aiohttp

from runtime.http_resolver import SharedResolver
from runtime.lookup import Lookups

MAX_CONNECTIONS = 100
"""Default limit of an HTTP session's connections."""


@dataclass(frozen=True, eq=False, slots=True)
class Outgoing:
    """The name lookups of an event loop, and the addresses that were silent at the last attempt."""

    lookups: Lookups = field(default_factory=Lookups)
    silent: set[Any] = field(default_factory=set)
    """Socket addresses of databases that accepted a connection and did not answer. They are tried last."""


_BY_LOOP: WeakKeyDictionary[asyncio.AbstractEventLoop, Outgoing] = WeakKeyDictionary()


def outgoing() -> Outgoing:
    """The shared state of the running event loop."""
    return _BY_LOOP.setdefault(asyncio.get_running_loop(), Outgoing())


def http_session(*, connections: int = MAX_CONNECTIONS, **options: Any) -> aiohttp.ClientSession:
    """An HTTP session for requests to one server, without cookies and proxies. The caller must close it."""
    connector = aiohttp.TCPConnector(limit=connections, resolver=SharedResolver(outgoing().lookups))
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, **options)
