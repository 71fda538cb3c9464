"""The API's listener: what answers for the application, and how much its connections may take.

A load balancer in front passes whole headers on and shares its connections, so that it never meets these limits.
"""

import resource

from aiohttp import web

from runtime.listener import Limits
from service.api.limits import HEADER_LIMIT, KEEP_ALIVE, MOST_CONNECTIONS, RESERVED_DESCRIPTORS


def runner(app: web.Application, *, shutdown_timeout: float) -> web.AppRunner:
    """What answers for the application; `shutdown_timeout` is how many seconds its connections have to end."""
    return web.AppRunner(
        app,
        handler_cancellation=True,  # the end of a stream whose client has gone
        shutdown_timeout=shutdown_timeout,
    )


def connection_limits() -> Limits:
    """What the API's connections may take. A load balancer's node has one address: there is no limit per peer."""
    return Limits(connections=most_connections(), header=HEADER_LIMIT, idle=KEEP_ALIVE)


def most_connections() -> int:
    """How many there may be: `MOST_CONNECTIONS`, or as the process's limit on open files allows."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(files - RESERVED_DESCRIPTORS, files // 2))
