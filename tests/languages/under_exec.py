"""Tests of Node and celery beat under `python -m sidecar exec`; celery has its own virtual environment.

`make languages` runs these tests.
"""

import asyncio
import os
import signal
import subprocess
import venv
from pathlib import Path

import pytest
import redis

from ops.local.servers import RedisServer
from tests.sidecar.wrapper.programs import Wrapper, follows, hand_over, run
from tests.support.processes import RealSidecar, killed_at_exit
from tests.support.waiting import eventually

Pair = tuple[RealSidecar, RealSidecar]
CELERY = "celery[redis]==5.5.3"

NODE = """\
const { appendFileSync } = require("node:fs");
const { DIARY, LEASE_HOLDER, LEASE_TOKEN, LEASE_NAME } = process.env;
const say = (line) => appendFileSync(DIARY, line + "\\n");
process.on("SIGTERM", () => setTimeout(() => { say(`end ${LEASE_HOLDER} ${LEASE_TOKEN}`); process.exit(7); }, 300));
say(`begin ${LEASE_HOLDER} ${LEASE_TOKEN} ${LEASE_NAME}`);
setInterval(() => {}, 1000);
"""

SCHEDULE = """\
from celery import Celery
app = Celery(broker={url!r})
app.conf.beat_schedule = {{"tick": {{"task": "tick", "schedule": 0.5}}}}
"""


async def test_a_node_program_runs_in_one_task_and_moves_after_its_end(sidecars: Pair, tmp_path: Path) -> None:
    await hand_over(sidecars, tmp_path, ("node", "-e", NODE))


@pytest.fixture(scope="session")
def celery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The celery command, installed into a virtual environment."""
    folder = tmp_path_factory.mktemp("celery")
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", CELERY]
    subprocess.run(pip, check=True)
    return folder / "bin" / "celery"


async def test_one_celery_beat_sends_the_tasks_and_another_takes_over(
    sidecars: Pair, tmp_path: Path, redis_of_its_own: RedisServer, celery: Path
) -> None:
    (tmp_path / "schedule_app.py").write_text(SCHEDULE.format(url=redis_of_its_own.url))
    beats = [
        Wrapper(
            tmp_path, name, sidecar.url, "", str(celery), "--workdir", str(tmp_path), "-A", "schedule_app",
            "beat", "--schedule", str(tmp_path / f"{name}.db"), "--pidfile", "", PYTHONPATH=str(tmp_path) + os.pathsep,
        )
        for name, sidecar in zip(("one", "other"), sidecars, strict=True)
    ]  # fmt: skip
    one, other = beats
    with killed_at_exit(one, other), redis.Redis.from_url(redis_of_its_own.url) as broker:
        one.start()
        await eventually(lambda: broker.llen("celery") > 2, within=60)
        other.start()
        await eventually(lambda: follows(sidecars[1]), within=60)
        one.send(signal.SIGTERM)
        assert await asyncio.to_thread(one.wait) == 0
        assert run(one.commands) == []
        assert "SIGKILL" not in one.output, "beat ends on SIGTERM"
        await eventually(lambda: other.commands, within=60)
        sent = broker.llen("celery")
        await eventually(lambda: broker.llen("celery") > sent + 2, within=60)
        assert await asyncio.to_thread(other.stop, signal.SIGTERM) == 0
        assert run(other.commands) == []
