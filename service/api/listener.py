"""The runner of a listener's application, and the limits of the public listener's connections.

A load balancer shares connections among clients. But each open stream needs a connection of its own, so many streams
can reach the limit of connections.
"""

import resource

from aiohttp import web

from runtime.listener import Limits
from service.api.limits import HEADER_LIMIT, KEEP_ALIVE, MAX_CONNECTIONS, RESERVED_DESCRIPTORS, STREAMS_SHARE


def runner(app: web.Application, *, shutdown_timeout: float) -> web.AppRunner:
    """The runner of an application. `shutdown_timeout` is the limit for its connections to end, in seconds."""
    return web.AppRunner(
        app,
        handler_cancellation=True,  # ends a stream whose client has disconnected
        shutdown_timeout=shutdown_timeout,
    )


def connection_limits() -> Limits:
    """The limits of the public listener's connections.

    All clients behind a node of a load balancer share one address, so there is no limit per address.
    """
    return Limits(connections=max_connections(), header=HEADER_LIMIT, idle=KEEP_ALIVE)


def max_streams() -> int:
    """The maximum number of open streams of this task."""
    return int(max_connections() * STREAMS_SHARE)


def max_connections() -> int:
    """The maximum number of connections: `MAX_CONNECTIONS`, or what the limit on open files allows."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(files - RESERVED_DESCRIPTORS, files // 2))
