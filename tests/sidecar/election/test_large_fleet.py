"""Candidates of a large fleet on a real Redis."""

from redis import Redis

from ops.local.servers import RedisServer
from runtime.clock import elapsed
from sidecar.protocol import Timings
from sidecar.redis.watch import WatchMode
from tests.support.script_caller import Caller
from tests.support.served_control import KEYS, served
from tests.support.subscribers import subscribed
from tests.support.waiting import eventually

KEY = KEYS["tracker"]
SLOW = Timings(ttl=600.0, heartbeat=200.0, grant_ttl=30.0, call_limit=40.0)
"""Timings under which a follower makes no call for minutes without a notice."""


def scripts_run(redis: Redis) -> int:
    return int(redis.info("commandstats")["cmdstat_eval"]["calls"])


def highest(_: float, high: float) -> float:
    """Draw for a candidate that gives up its direct watch, and calls as late as possible."""
    return high


def lowest(low: float, _: float) -> float:
    """Draw for a candidate that keeps its direct watch."""
    return low


async def test_a_release_reaches_the_client_of_a_relayed_watch_if_no_direct_watch_has_a_client(
    redis: Redis, redis_server: RedisServer
) -> None:
    holder = Caller(redis, id="holder", ttl=600_000, key=KEY)
    token = holder.acquire().token
    async with (
        served(redis_server, "idle", timings=SLOW, uniform=lowest) as idle,
        served(redis_server, "wants", timings=SLOW, uniform=highest) as wants,
    ):
        await eventually(lambda: idle.watch.mode is wants.watch.mode is WatchMode.TRACKING)
        with subscribed(redis, KEY, 12, 30):
            before = scripts_run(redis)
            assert not (await wants.get("/is-leader/tracker"))["is_leader"]
            await eventually(lambda: redis.pubsub_numsub(f"{KEY}:vacant:changed")[0][1] == 31)
            await eventually(lambda: scripts_run(redis) >= before + 2)  # a call follows the change of the watch
            await eventually(lambda: wants.candidate._asleep_until > elapsed() + 20)
            holder.release(token)
            assert (await wants.lead())["is_leader"]
            await eventually(lambda: redis.pubsub_numsub(f"{KEY}:changed")[0][1] == 14)
