"""Check that a request to a loopback listener comes from a program of this task, not from a web page or a proxy.

A browser on the same machine can reach the loopback, and so can a web page whose host name was rebound to a loopback
address (DNS rebinding).
"""

import re
from functools import lru_cache

from aiohttp import web
from multidict import MultiMapping

from runtime import addresses

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:@/?#\[\]]+))(?::[0-9]*)?", re.IGNORECASE)


def refusal(request: web.BaseRequest) -> str | None:
    """Why the request is refused; None if it is accepted.

    A request is refused if its `Host`, or the host in its target, is not the loopback, or if a page of another origin
    made it. Only requests other than GET and HEAD need a `Host`: every browser sends the header, but a shell script may
    omit it.
    """
    return refusal_of(request.method, request.headers, request.host if "Host" in request.headers else None)


def refusal_of(method: str, headers: MultiMapping[str], target: str | None = None) -> str | None:
    """Why a request with this method and headers is refused; None if it is accepted.

    `target` is aiohttp's `request.host`: the host in the request target or, without one, the value of `Host`.
    """
    hosts = headers.getall("Host", [])
    if target is not None and target != hosts[0]:  # the target has a host, as in a proxy's request
        hosts.append(f"[{target}]" if ":" in target else target)
    for host in hosts:
        if not is_loopback(host):
            return f"the host {host[:80]!r} is not this task's loopback"
    if not hosts and method not in ("GET", "HEAD"):
        return "the header Host is missing"
    for origin in headers.getall("Origin", ()):
        if origin.lower() not in {f"http://{host}".lower() for host in hosts}:
            return f"the request comes from a page of another origin ({origin[:80]!r})"
    for site in headers.getall("Sec-Fetch-Site", ()):
        if site.lower() not in ("same-origin", "none"):
            return f"the request comes from a page of another origin (Sec-Fetch-Site: {site[:80]!r})"
    return None


@lru_cache(maxsize=64)  # most requests of a client have the same host
def is_loopback(host: str) -> bool:
    """Whether the value of a Host header, with a port or without, names the loopback."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    address, name = match.groups()
    if name is not None and name.lower() in ("localhost", "localhost."):
        return True
    return addresses.is_loopback(address or name)
