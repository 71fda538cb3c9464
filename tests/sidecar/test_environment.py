"""Library switches in the environment that are meant for another program neither stop nor change the sidecar."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp

from ops.local.servers import RedisServer
from runtime.environment import IGNORED
from tests.service.test_environment import HARMLESS, IRRELEVANT, documented, read_by
from tests.sidecar.test_process import STEADY, Asker
from tests.support.processes import ROOT, RealSidecar, killed_at_exit
from tests.support.waiting import eventually

LIBRARIES = (
    *("aiohappyeyeballs", "aiohttp", "aiosignal", "attr", "frozenlist", "idna", "multidict", "prometheus_client"),
    *("propcache", "pythonjsonlogger", "redis", "uvloop", "yarl"),
)
MEANT_FOR_OTHERS = {
    **dict.fromkeys(sorted(IGNORED), "1"),
    "PYTHONWARNINGS": "error",
    "SSLKEYLOGFILE": "/nowhere/keys",
    "UV_THREADPOOL_SIZE": "nonsense",
    "PROMETHEUS_MULTIPROC_DIR": "/nowhere/metrics",
    "prometheus_multiproc_dir": "/nowhere/metrics",
    "PROMETHEUS_DISABLE_CREATED_SERIES": "nonsense",
    "PROMETHEUS_LEGACY_NAME_VALIDATION": "nonsense",
}
LOOKS_INSIDE = """
import os, sys, types, warnings
from sidecar import __main__ as program
def look(environment, ignored):
    import asyncio, aiohttp.helpers
    print(*sorted({*ignored} & {*os.environ}), aiohttp.helpers.NO_EXTENSIONS, asyncio.new_event_loop().get_debug(),
          [each[2].__name__ for each in warnings.filters if each[0] == "error"])
    return 0
sys.modules["sidecar.run"] = types.SimpleNamespace(run=look)
sys.exit(program.main([]))
"""
"""Program that starts the sidecar, but prints the switches that are still in effect instead of running it."""


async def test_the_sidecar_leads_with_every_library_switch_set(redis_server: RedisServer, tmp_path: Path) -> None:
    sidecar = RealSidecar(tmp_path, redis_server, "task-a", **STEADY, **MEANT_FOR_OTHERS, **HARMLESS)
    with killed_at_exit(sidecar):
        sidecar.start()
        async with aiohttp.ClientSession() as session:
            asker = Asker(sidecar, session)
            await eventually(asker.status)
            await eventually(lambda: _leads(asker))
            assert await asker.metric("sidecar_transitions_created{"), "a switch changed the set of metrics"
            await asker.resign()
        assert sidecar.stop(signal.SIGTERM) == 0
    lines = [json.loads(line) for line in sidecar.output.splitlines()]  # every line is a log line
    assert {line["level"] for line in lines} == {"INFO"}
    (message,) = [line["message"] for line in lines if "ignored environment variables" in line["message"]]
    assert message.rpartition(": ")[2].split() == sorted(MEANT_FOR_OTHERS)


def test_no_library_switch_is_in_effect_when_the_sidecar_runs() -> None:
    ended = run("-c", LOOKS_INSIDE)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("False False []\n", "", 0)


def test_library_switches_do_not_prevent_the_start() -> None:
    """A port that is in use stops the sidecar only after everything is imported and created, TLS included."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run("-m", "sidecar", CONTROL_BIND=address, INSTANCE_ID="me", REDIS_URL="rediss://127.0.0.1:1")
    assert ended.returncode == 2
    assert ended.stderr == f"sidecar: CONTROL_BIND: cannot listen on {address}: Address already in use\n"


def test_library_switches_do_not_change_commands_or_the_health_check() -> None:
    checked = run("-m", "sidecar", "healthcheck", CONTROL_BIND="127.0.0.1:1")
    assert (checked.stdout, checked.stderr, checked.returncode) == ("", "", 1)
    failed = run("-m", "sidecar", "leaders", REDIS_URL="redis://127.0.0.1:1")
    assert failed.returncode == 1
    assert failed.stderr.startswith("sidecar: Redis at redis://127.0.0.1:1: ")
    assert failed.stderr.count("\n") == 1


def test_every_variable_that_a_library_reads_is_documented() -> None:
    """This test fails if a new version of a library reads a new switch.

    Decide how to handle the switch, and document it.
    """
    families = ("PROMETHEUS_", "prometheus_", "PYTHON")
    read = {name for name in read_by(LIBRARIES) - IRRELEVANT if not name.startswith(families)}
    assert {"AIOHTTP_NO_EXTENSIONS", "YARL_NO_EXTENSIONS"} <= read
    assert [name for name in sorted(read | IGNORED) if f"`{name}`" not in documented("The sidecar")] == []


async def _leads(asker: Asker) -> bool:
    return bool((await asker.ask())["is_leader"])


def run(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program with every switch set, and return the ended process."""
    environment = {"PATH": os.environ["PATH"], **MEANT_FOR_OTHERS, **HARMLESS, **settings}
    return subprocess.run(
        [sys.executable, *words], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
