"""The kind of Redis: one server, a cluster, or a primary that sentinels name. This module only reads settings."""

from binascii import crc_hqx
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from sidecar.redis_host import checked_host

SLOTS = 16_384
"""Number of hash slots of a cluster."""
MAX_CALL = 1 / 12
"""Limit of REDIS_TIMEOUT with sentinels, as a fraction of LEASE_TTL: half of the safety margin."""
LATE_DEMOTION = 20.0
"""Assumed limit, in seconds, of the time for which an old primary serves after a promotion.

Sentinels demote the old primary after up to 18 s.
"""
SENTINEL_PORT = 26_379
"""Default port of a sentinel."""

Node = tuple[str, int]
"""The host and the port of a server."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster. The settings name one node; `slot` is the hash slot of every lease."""

    slot: int


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Sentinels at `nodes` that name the primary of the group `master`; the login is for the sentinels."""

    nodes: tuple[Node, ...]
    master: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        listed = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)
        return f"the primary {self.master} of the sentinels {listed}"


ServerKind = Cluster | Sentinels | None
"""Kind of Redis; None means one server, or a host name that always leads to the primary."""


def late_demotion_of(kind: ServerKind) -> float:
    """The seconds by which the failover guard waits longer than one ttl."""
    return LATE_DEMOTION if isinstance(kind, Sentinels) else 0.0


def read_kind(env: Mapping[str, str], keys: Iterable[str], *, cluster: bool) -> tuple[ServerKind, dict[str, str]]:
    """The kind of Redis in the environment, and problems by the name of their variable.

    Args:
        env: the environment.
        keys: the keys of the leases.
        cluster: the value of REDIS_CLUSTER.
    """
    if "REDIS_SENTINELS" in env:
        return _sentinels(env, cluster=cluster)
    wrong = {
        name: "needs REDIS_SENTINELS"
        for name in ("REDIS_SENTINEL_MASTER", "REDIS_SENTINEL_USERNAME", "REDIS_SENTINEL_PASSWORD")
        if name in env
    }
    if not cluster:
        return None, wrong
    slots = {slot_of(key) for key in keys}
    if len(slots) > 1:
        wrong["LEASE_KEY"] = (
            "with REDIS_CLUSTER the keys of all leases need one hash slot; a hash tag gives them one:"
            " {portfolio}:{name}:leader"
        )
    if "REDIS_URL" in env and (why := _unfit_for_cluster(env["REDIS_URL"])) is not None:
        wrong["REDIS_CLUSTER"] = why
    return Cluster(min(slots)), wrong


def slot_of(key: str) -> int:
    """The hash slot of a key: the slot of its hash tag (the part between its first braces) if it has one."""
    tag = key.partition("{")[2].partition("}")
    return crc_hqx((tag[0] if tag[0] and tag[1] else key).encode(), 0) % SLOTS


def _unfit_for_cluster(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None  # REDIS_URL itself is refused
    if parts.scheme == "unix":
        return "cannot be set together with a REDIS_URL of unix://: the nodes of a cluster need addresses"
    if parts.path.strip("/").lstrip("0") or parse_qs(parts.query).get("db", ["0"])[-1].lstrip("0"):
        return "cannot be set together with a database number in REDIS_URL: a cluster has database 0 only"
    return None


def _sentinels(env: Mapping[str, str], *, cluster: bool) -> tuple[ServerKind, dict[str, str]]:
    wrong = {
        name: "cannot be set together with REDIS_SENTINELS, which name the primary"
        for name in ("REDIS_HOST", "REDIS_PORT", "REDIS_URL")
        if name in env
    }
    if cluster:
        wrong["REDIS_CLUSTER"] = "cannot be set together with REDIS_SENTINELS: a cluster has no sentinels"
    if "REDIS_SENTINEL_MASTER" not in env:
        wrong["REDIS_SENTINEL_MASTER"] = "missing, though REDIS_SENTINELS is set"
    if "REDIS_SENTINEL_USERNAME" in env and "REDIS_SENTINEL_PASSWORD" not in env:
        wrong["REDIS_SENTINEL_PASSWORD"] = "missing, though REDIS_SENTINEL_USERNAME is set"  # noqa: S105 - no password
    nodes: tuple[Node, ...] = ()
    try:
        nodes = _nodes(env["REDIS_SENTINELS"])
    except ValueError as error:
        wrong["REDIS_SENTINELS"] = str(error)
    kind = Sentinels(
        nodes,
        env.get("REDIS_SENTINEL_MASTER", ""),
        env.get("REDIS_SENTINEL_USERNAME"),
        env.get("REDIS_SENTINEL_PASSWORD"),
    )
    return kind, wrong


def _nodes(text: str) -> tuple[Node, ...]:
    """The addresses `HOST:PORT` that commas separate; an IPv6 address needs brackets.

    Raises:
        ValueError: an address is malformed, or is listed twice.
    """
    nodes = tuple(_node(each.strip()) for each in text.split(","))
    if len(set(nodes)) < len(nodes):
        raise ValueError("an address is listed twice")
    return nodes


def _node(text: str) -> Node:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        host, port = text, str(SENTINEL_PORT)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65_536):
        raise ValueError("an address is not HOST:PORT; separate several addresses by commas")
    if not host:
        raise ValueError("an address has no host; separate several addresses by commas")
    return checked_host(host), int(port)
