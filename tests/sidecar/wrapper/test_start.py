"""The start of the program, and the children from before it."""

import os
import signal
import sys
from pathlib import Path

from ops.local.servers import free_port
from tests.sidecar.wrapper.programs import BECOME, Wrapper, state
from tests.support.processes import killed_at_exit
from tests.support.waiting import eventually


def started_by_a_shell(wrapper: Wrapper, text: str) -> Wrapper:
    """The wrapper, started by a shell script that executes `"$@"`."""
    wrapper._arguments = ["-c", BECOME, "sh", "-c", text, "sh", sys.executable, *wrapper._arguments]
    return wrapper


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
