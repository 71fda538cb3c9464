from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ops.local.servers import RedisServer
from tests.support.processes import RealSidecar, get_json, killed_at_exit
from tests.support.waiting import eventually


@pytest.fixture
async def sidecars(
    redis_server: RedisServer, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[RealSidecar, RealSidecar]]:
    """Two sidecars of one lease; the parameter, if given, is their grant in seconds."""
    times = {"GRANT_TTL": getattr(request, "param", "10"), "REDIS_TIMEOUT": "5"}
    one, other = (RealSidecar(tmp_path, redis_server, name, **times) for name in ("task-a", "task-b"))
    with killed_at_exit(one, other):
        for sidecar in (one, other):
            sidecar.start()

        async def both_answer() -> bool:
            return all([await get_json(f"{sidecar.url}/healthz") for sidecar in (one, other)])

        await eventually(both_answer, within=60)
        yield one, other
