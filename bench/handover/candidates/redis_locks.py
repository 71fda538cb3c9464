"""A program with a lock on Redis: `python -m bench.handover.candidates.redis_locks KIND URL [TTL]`.

Without TTL (in seconds) each lock has the library's default. Where the library has none, the lock expires after 30 s.
"""

import signal
import sys
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import sleep

import redis

from bench.handover.candidates.stage import SIGNALS, now, prepare, report, turns, work

TTL, HEARTBEAT = 30.0, 10.0
"""Seconds: the guide's lease and heartbeat."""
GUIDE_KEY = "portfolio:background_services:leader"
RENEW = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('expire', KEYS[1], ARGV[2])"
RELEASE = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1])"


def python_redis_lock(url: str, ttl: float | None) -> AbstractContextManager[object]:
    """Return python-redis-lock's lock. Its BLPOP needs a socket timeout longer than redis-py's default."""
    import redis_lock

    client = redis.Redis.from_url(url, socket_timeout=60)
    lock: AbstractContextManager[object] = redis_lock.Lock(client, "bench", expire=round(ttl or TTL), auto_renewal=True)
    return lock


def redis_py(url: str, ttl: float | None) -> AbstractContextManager[object]:
    """Return redis-py's lock. It polls every 0.1 s and renews nothing by itself."""
    lock: AbstractContextManager[object] = redis.Redis.from_url(url).lock("bench", timeout=ttl or TTL)
    return lock


def pottery(url: str, ttl: float | None) -> AbstractContextManager[object]:
    """Return pottery's Redlock on one server. It polls after random pauses of up to 0.2 s."""
    from pottery import Redlock

    timeout = {"auto_release_time": ttl} if ttl else {}
    lock: AbstractContextManager[object] = Redlock(key="bench", masters={redis.Redis.from_url(url)}, **timeout)
    return lock


POLLS_EVERY = {"redis-py": 0.1}
"""Seconds between two polls of a lock that polls at a fixed pace."""
LOCKS: dict[str, Callable[[str, float | None], AbstractContextManager[object]]] = {
    "python-redis-lock": python_redis_lock,
    "redis-py": redis_py,
    "pottery": pottery,
}


def with_lock(lock: AbstractContextManager[object], polls_every: float) -> None:
    """Work under the lock after each line of the benchmark."""
    for _ in turns(polls_every):
        with lock:
            ended = work()
        report("ended", ended)


def with_loop(url: str, ttl: float | None) -> None:
    """Run the guide's loop: SET NX each heartbeat; the leader renews each heartbeat, and deletes its key at the end."""
    client = redis.Redis.from_url(url)
    name, lease = str(uuid.uuid4()), ttl or TTL
    heartbeat = lease * HEARTBEAT / TTL
    renew, release = client.register_script(RENEW), client.register_script(RELEASE)
    for _ in turns(heartbeat):
        while not client.set(GUIDE_KEY, name, nx=True, ex=round(lease)):
            sleep(heartbeat)
        report("began", now())
        while signal.sigtimedwait(SIGNALS, heartbeat) is None:
            renew([GUIDE_KEY], [name, round(lease)])
        ended = now()
        release([GUIDE_KEY], [name])
        report("ended", ended)


def main(kind: str, url: str, ttl: float | None) -> None:
    """Run the lock or the guide's loop."""
    prepare()
    if kind == "guide":
        with_loop(url, ttl)
    else:
        with_lock(LOCKS[kind](url, ttl), POLLS_EVERY.get(kind, 0.0))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else None)
