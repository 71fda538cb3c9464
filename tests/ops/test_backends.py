"""The Redis and the Postgres that `make run` uses."""

import asyncio
import sys
from pathlib import Path

from ops.local.backends import Backends
from ops.local.console import Console
from ops.local.settings import RunSettings
from sidecar.settings import read


async def test_a_stop_ends_the_check_of_redis_at_any_moment(tmp_path: Path) -> None:
    settings = RunSettings.read({"DATABASE_URL": "postgres://nobody@127.0.0.1:1/none"}, tmp_path)
    backends = Backends(settings, {}, Console(sys.stdout, tmp_path, colours=False, closed=lambda: None))
    backends.find()
    try:
        await backends.start(read({}))
        turns = 0
        while True:
            vouching = asyncio.ensure_future(backends.vouch_for_redis(["a", "b"]))
            for _ in range(turns):
                await asyncio.sleep(0)
            if vouching.done():
                break
            vouching.cancel()
            await asyncio.wait([vouching])
            assert vouching.cancelled(), f"the cancellation was lost after {turns} turns of the event loop"
            turns += 1
        assert turns > 1
    finally:
        await backends.stop()
