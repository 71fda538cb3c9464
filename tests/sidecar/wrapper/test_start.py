"""The start of the program, and child processes that are older than the wrapper."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from ops.local.servers import free_port
from runtime.clock import elapsed
from sidecar.client import LeaseClient
from sidecar.wrapper import group, run
from sidecar.wrapper.arguments import Arguments
from tests.sidecar.wrapper.programs import BECOME, NAME, Wrapper, script, state
from tests.support.hostile_sidecar import FakeSidecar, fake_sidecar
from tests.support.processes import RealSidecar, killed_at_exit
from tests.support.waiting import eventually

Pair = tuple[RealSidecar, RealSidecar]


def started_by_a_shell(wrapper: Wrapper, text: str) -> Wrapper:
    """The wrapper, started by a shell script that executes `"$@"`."""
    wrapper._arguments = ["-c", BECOME, "sh", "-c", text, "sh", sys.executable, *wrapper._arguments]
    return wrapper


async def test_the_program_inherits_the_open_descriptors_of_the_wrapper(sidecars: Pair, tmp_path: Path) -> None:
    program = 'for number in 3 4 5 6 7 8 9; do eval "echo $number >&$number"; done'
    wrapper = started_by_a_shell(
        Wrapper(tmp_path, "wrapper", sidecars[0].url, "--once", "sh", "-c", program),
        'exec 3>"$DIARY" 4>&3 5>&3 6>&3 7>&3 8>&3 9>&3; exec "$@"',
    )
    with killed_at_exit(wrapper):
        wrapper.start()
        assert await asyncio.to_thread(wrapper.wait) == 0
    assert wrapper.diary == list("3456789")


async def test_a_child_from_before_the_wrapper_is_reaped_while_no_program_runs(tmp_path: Path) -> None:
    """The init process of a container gets such children too: the orphans of the container."""
    wrapper = started_by_a_shell(
        Wrapper(tmp_path, "wrapper", f"http://127.0.0.1:{free_port()}", "", "true"), 'sleep 1000 & exec "$@"'
    )
    with killed_at_exit(wrapper):
        wrapper.start()
        await eventually(lambda: "the leader is unknown" in wrapper.output)
        (child,) = wrapper.children
        os.kill(child, signal.SIGKILL)
        await eventually(lambda: state(child) == "")


async def test_a_missing_interpreter_is_named_as_the_cause(sidecars: Pair, tmp_path: Path) -> None:
    program = script(tmp_path, "exit 0\n", first="#!/no/such/interpreter\n")
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "", program)
    with killed_at_exit(wrapper):
        wrapper.start()
        assert await asyncio.to_thread(wrapper.wait) == 127
    assert f"cannot execute '{program}': its interpreter or loader does not exist" in wrapper.output


async def test_with_once_the_status_of_a_program_that_was_stopped_at_its_start_is_kept(tmp_path: Path) -> None:
    """The event loop stands still until the program runs. So the wrapper is stopped before it knows of the program."""
    began = tmp_path / "began"
    program = script(tmp_path, f"trap 'exit 3' TERM\n: >'{began}'\nwhile :; do sleep 0.01; done\n")
    async with fake_sidecar() as fake:
        wrapper, running = await _starting(fake, program)
        deadline = time.monotonic() + 20
        while not began.exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)  # noqa: ASYNC251 - the loop must not run
        running.cancel()
        assert await running == 3
        assert wrapper.status == 3


async def test_with_once_a_wrapper_stopped_before_the_program_is_executed_has_no_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that becomes the program takes long to start."""
    (tmp_path / "starter.py").write_text("import time\ntime.sleep(1000)\n")
    (tmp_path / "watchdog.py").symlink_to(group.FOLDER / "watchdog.py")
    monkeypatch.setattr(group, "FOLDER", tmp_path)
    async with fake_sidecar() as fake:
        wrapper, running = await _starting(fake, "true")
        running.cancel()
        await asyncio.wait((running,))
        assert running.cancelled()
        assert wrapper.status is None


async def _starting(fake: FakeSidecar, program: str) -> tuple[run.Wrapper, asyncio.Task[int]]:
    """Start a wrapper; return just after it has started the watchdog and the process that becomes the program."""
    await fake.elect(7)
    wrapper = run.Wrapper(Arguments(NAME, (program,), None, once=True), elapsed)
    running = asyncio.create_task(wrapper.run(LeaseClient(fake.url)))
    async with asyncio.timeout(20):
        while not _has_watchdog():  # noqa: ASYNC110 - nothing reports the process, and a longer sleep could miss it
            await asyncio.sleep(0)
    return wrapper, running


def _has_watchdog() -> bool:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return any(b"watchdog.py" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children)
