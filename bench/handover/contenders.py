"""The contenders: leases and locks whose hand-over is measured."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.handover.servers import EtcdLease, LeaseServer, RedisLease, ZooKeeperSession


@dataclass(frozen=True)
class Contender:
    """A library, the program that uses it, and its server."""

    key: str
    """The name for the command line."""
    name: str
    program: str
    """The module of `bench.handover.candidates`."""
    server: Callable[[Path], LeaseServer]
    """Function that returns the server; its argument is the server's folder."""
    arguments: tuple[str, ...] = ()
    """Arguments of the program before the address."""
    project: str | None = None
    """The project of `bench.environments` that has the library; None for this project's environment."""
    sidecar: bool = False
    """True if each program has a sidecar."""
    hold: tuple[float, float] = (0.04, 0.08)
    """Minimum and maximum duration of the work in a round, in seconds.

    For a lock that polls at a fixed interval, the maximum is the minimum plus that interval, which spreads the releases
    over the whole interval.
    """
    candidates: int = 3
    rounds: int | None = None
    """Number of hand-overs by SIGTERM if a hand-over takes seconds; None for the number in `Options`."""
    legs: bool = False
    """True to measure the legs of a hand-over; the server must be a `RedisLease`."""
    loses: bool = True
    """True if another candidate replaces a lost leader."""


def _redis(key: str) -> Callable[[Path], LeaseServer]:
    return lambda folder: RedisLease(folder, key)


_SIDECAR = _redis("portfolio:bench:leader")

LIBRARY = Contender("library", "sidecar, client library", "sidecar_library", _SIDECAR, sidecar=True, legs=True)
HTTP = Contender("http", "sidecar, http.client", "sidecar_http", _SIDECAR, sidecar=True, legs=True)
PYTHON_REDIS_LOCK = Contender(
    "python-redis-lock", "python-redis-lock", "redis_locks", _redis("lock:bench"),
    ("python-redis-lock",), "python-redis-lock", legs=True,
)  # fmt: skip
REDIS_PY = Contender(
    "redis-py", "redis-py Lock", "redis_locks", _redis("bench"), ("redis-py",), "redis", hold=(0.04, 0.14)
)
POTTERY = Contender("pottery", "pottery Redlock", "redis_locks", _redis("redlock:bench"), ("pottery",), "pottery")
KAZOO = Contender("kazoo", "kazoo on ZooKeeper", "zookeeper", ZooKeeperSession, project="kazoo")
ETCD = Contender("etcd", "etcd3gw on etcd", "etcd", EtcdLease, project="etcd3gw")
GUIDE = Contender(
    "guide", "deployment guide's loop", "redis_locks", _redis("portfolio:background_services:leader"),
    ("guide",), "redis", hold=(0.04, 10.04), rounds=10,
)  # fmt: skip
LIMIT = Contender("limit", "DEL and PUBLISH alone", "limit", _redis("bench"), candidates=2, loses=False)

CONTENDERS = (LIBRARY, HTTP, PYTHON_REDIS_LOCK, REDIS_PY, POTTERY, KAZOO, ETCD, GUIDE, LIMIT)
