"""Candidates of a large fleet on a real Redis."""

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from runtime.clock import elapsed
from sidecar.protocol import RELAY_NOTICE, Timings
from sidecar.redis.watch import WatchMode
from tests.support.script_caller import Caller
from tests.support.served_control import KEYS, served
from tests.support.subscribers import subscribed
from tests.support.waiting import eventually

KEY = KEYS["tracker"]
SLOW = Timings(ttl=600.0, heartbeat=200.0, grant_ttl=30.0, call_limit=40.0)
"""Timings under which a follower makes no call for minutes without a notice."""
QUICK = Timings(ttl=30.0, heartbeat=0.2, grant_ttl=5.0, call_limit=5.0)
"""Timings under which the server's time, known from a reply, is soon too old to be used."""


def scripts_run(redis: Redis) -> int:
    return int(redis.info("commandstats")["cmdstat_eval"]["calls"])


def highest(_: float, high: float) -> float:
    """Draw the highest number: the candidate then gives up its direct watch, and calls as late as possible."""
    return high


async def test_a_release_reaches_the_client_of_a_relayed_watch_if_no_direct_watch_has_a_client(
    redis: Redis, redis_server: RedisServer
) -> None:
    """The candidate that relays has made no call for long, so it no longer knows the server's time."""
    holder = Caller(redis, id="holder", ttl=600_000, key=KEY)
    token = holder.acquire().token
    async with (
        served(redis_server, "idle", timings=QUICK) as idle,
        served(redis_server, "wants", timings=SLOW, uniform=highest) as wants,
    ):
        await eventually(lambda: idle.watch.mode is wants.watch.mode is WatchMode.TRACKING)
        with subscribed(redis, KEY, 12, 30):
            before = scripts_run(redis)
            assert not (await wants.get("/is-leader/tracker"))["is_leader"]
            await eventually(lambda: redis.pubsub_numsub(f"{KEY}:vacant:changed")[0][1] == 31)
            await eventually(lambda: scripts_run(redis) >= before + 2)  # a call follows the change of the watch
            await eventually(lambda: wants.candidate._asleep_until > elapsed() + 20)
            await eventually(lambda: idle.candidate._store._server_clock.at(elapsed(), elapsed()) == 0)
            holder.release(token)
            assert (await wants.lead())["is_leader"]
            await eventually(lambda: redis.pubsub_numsub(f"{KEY}:direct:changed")[0][1] == 12 + 1)  # and the leader
            await eventually(lambda: redis.pubsub_numsub(f"{KEY}:vacant:changed")[0][1] == 30 + 1)  # and the idle one


async def test_a_relay_that_finds_the_candidates_own_id_is_no_trouble(
    redis: Redis, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The id may come from an acquire of this candidate whose reply was lost, so it does not prove a second process.

    Only a call that names a term can reveal another process with the same id.
    """
    Caller(redis, id="same", tenure="other-1", ttl=600_000, key=KEY).acquire()
    async with served(redis_server, "same", timings=SLOW) as sidecar:
        await eventually(lambda: sidecar.watch.mode is WatchMode.TRACKING)
        before = scripts_run(redis)
        redis.publish(f"{KEY}:changed", RELAY_NOTICE)
        await eventually(lambda: scripts_run(redis) == before + 1 and sidecar.candidate._under_way is None)
        await eventually(lambda: sidecar.candidate._asleep_until > elapsed())
        assert sidecar.candidate.status("tracker").trouble is None
        assert not [record for record in caplog.records if record.levelname == "ERROR"]
