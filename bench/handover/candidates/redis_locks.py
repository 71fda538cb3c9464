"""A program with a lock on Redis: `python -m bench.handover.candidates.redis_locks KIND URL [TTL]`.

Without TTL (in seconds) each lock has the library's default. A library without a default gets 30 s.
"""

import sys
import uuid
from time import sleep

import redis

from bench.handover.candidates.stage import prepare, report, turns, work

TTL = 30.0
"""Duration of a lease in seconds, for a library without a default; also the duration in the deployment guide."""
RENEWALS = 3
"""Number of renewals within a lease, as in the deployment guide."""
GUIDE_KEY = "portfolio:background_services:leader"
RENEW = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('expire', KEYS[1], ARGV[2])"
RELEASE = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1])"


def python_redis_lock(url: str, ttl: float | None) -> None:
    """Use python-redis-lock, which renews by itself. Its BLPOP needs a socket timeout above redis-py's default."""
    import redis_lock

    client = redis.Redis.from_url(url, socket_timeout=60)
    lock = redis_lock.Lock(client, "bench", expire=round(ttl or TTL), auto_renewal=True)
    for _ in turns():
        with lock:
            ended = work()
        report("ended", ended)


def redis_py(url: str, ttl: float | None) -> None:
    """Use redis-py's lock, which polls every 0.1 s."""
    lease = ttl or TTL
    lock = redis.Redis.from_url(url).lock("bench", timeout=lease)
    for _ in turns(0.1):
        with lock:
            ended = work(lock.reacquire, lease / RENEWALS)
        report("ended", ended)


def pottery(url: str, ttl: float | None) -> None:
    """Use pottery's Redlock on one server. It polls after random pauses of up to 0.2 s.

    By default it refuses the fourth renewal, so a longer leadership needs a higher limit.
    """
    from pottery import Redlock

    timeout = {"auto_release_time": ttl} if ttl else {}
    lock = Redlock(key="bench", masters={redis.Redis.from_url(url)}, num_extensions=sys.maxsize, **timeout)
    for _ in turns():
        with lock:
            ended = work(lock.extend, lock.auto_release_time / RENEWALS)
        report("ended", ended)


def guide(url: str, ttl: float | None) -> None:
    """Run the loop of the deployment guide.

    A follower tries SET NX each heartbeat. The leader renews each heartbeat, and deletes its key at the end.
    """
    client = redis.Redis.from_url(url)
    name, lease = str(uuid.uuid4()), ttl or TTL
    heartbeat = lease / RENEWALS
    renew, release = client.register_script(RENEW), client.register_script(RELEASE)
    for _ in turns(heartbeat):
        while not client.set(GUIDE_KEY, name, nx=True, ex=round(lease)):
            sleep(heartbeat)
        ended = work(lambda: renew([GUIDE_KEY], [name, round(lease)]), heartbeat)
        release([GUIDE_KEY], [name])
        report("ended", ended)


KINDS = {"python-redis-lock": python_redis_lock, "redis-py": redis_py, "pottery": pottery, "guide": guide}


if __name__ == "__main__":
    prepare()
    KINDS[sys.argv[1]](sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else None)
