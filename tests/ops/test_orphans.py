"""The reaping of orphans. Each test uses a new process, since `adopt` cannot be undone."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Timeout in seconds, long because the machine may be busy."""

BEGIN = """
import asyncio, os, subprocess
from pathlib import Path
import psutil
from ops.local import orphans
from ops.local.processes import running
from ops.local.server import Server
from tests.support.waiting import eventually

SHELL = "/bin/sh", "-c"

def await_end(pid):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

async def code_of(script):
    process = running([*SHELL, script], environment=os.environ, folder=Path("/"), output=lambda _: None)
    async with process as process:
        return await process.wait()
"""

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux gives the orphans of a child to the runner"
)


def said(script: str) -> str:
    """Run the script in a new process, and return its output."""
    argv = [sys.executable, "-c", BEGIN + script]
    return subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True).stdout


@pytest.mark.parametrize("orphan", ["sleep 0.05", "setsid sleep 0.05"])
def test_no_orphan_that_has_ended_stays_a_zombie_and_no_exit_code_is_lost(orphan: str) -> None:
    script = f"""
async def main():
    assert orphans.adopt()
    orphans.REAP_EVERY = 0
    async with asyncio.TaskGroup() as group:
        reaping = group.create_task(orphans.keep_reaping())
        print({{await code_of("{orphan} & exit 7") for _ in range(20)}})
        await eventually(lambda: not psutil.Process().children())
        reaping.cancel()

asyncio.run(main())
"""
    assert said(script) == "{7}\n"


def test_a_process_that_starts_and_ends_during_a_start_is_not_reaped() -> None:
    script = """
with orphans.starting():
    ours = subprocess.Popen([*SHELL, "exit 7"])
    await_end(ours.pid)
    orphans.reap()
    print(ours.wait())
"""
    assert said(script) == "7\n"


def test_neither_a_server_nor_a_program_that_prepares_its_files_is_reaped(tmp_path: Path) -> None:
    script = f"""
class Ending(Server):
    def command(self):
        return [*SHELL, "exit 7"]
    def prepare(self):
        super().prepare()
        program = subprocess.Popen([*SHELL, "exit 7"])
        await_end(program.pid)
        orphans.reap()
        print(program.wait())
    def ready(self):
        await_end(self.process.pid)
        orphans.reap()
        return True

print(asyncio.run(Ending(Path({str(tmp_path)!r})).start_beside()).exit_code)
"""
    assert said(script) == "7\n7\n"
