"""The program of a killed or frozen wrapper ends; a wrapper whose watchdog has ended restarts its program."""

import os
import signal
from pathlib import Path

import pytest

from tests.sidecar.wrapper.programs import ALIVE, POLITE, STUBBORN, Wrapper, blocked_signals, follows, run
from tests.support.processes import RealSidecar, killed_at_exit
from tests.support.waiting import eventually

Pair = tuple[RealSidecar, RealSidecar]


@pytest.mark.parametrize("sidecars", ["5"], indirect=True)
@pytest.mark.parametrize(
    ("program", "pids", "lines"),
    [
        (POLITE, 0, [["begin", "task-a"], ["stop", "task-a"], ["end", "task-a"], ["begin", "task-b"]]),
        (STUBBORN, 4, [["begin", "task-a"], ["begin", "task-b"]]),
    ],
    ids=["by SIGTERM", "by SIGKILL"],
)
@pytest.mark.slow
async def test_the_watchdog_ends_the_program_of_a_killed_wrapper(
    sidecars: Pair, tmp_path: Path, program: str, pids: int, lines: list[list[str]]
) -> None:
    one = Wrapper(tmp_path, "one", sidecars[0].url, "", "sh", "-c", program)
    alive = ALIVE.format(pids=one.pids_file) if pids else ""
    other = Wrapper(tmp_path, "other", sidecars[1].url, "", "sh", "-c", alive + POLITE)
    with killed_at_exit(one, other):
        one.start()
        await eventually(lambda: one.began and one.commands)
        await eventually(lambda: len(one.pids) == pids)
        other.start()
        await eventually(lambda: follows(sidecars[1]))
        one.stop(signal.SIGKILL)
        await eventually(lambda: len(other.began) == 2)
        assert run([*one.commands, *one.pids]) == []
        assert [line.split()[:2] for line in one.diary] == lines


@pytest.mark.parametrize("sidecars", ["5"], indirect=True)
@pytest.mark.slow
async def test_the_program_of_a_frozen_wrapper_ends_before_its_grant(sidecars: Pair, tmp_path: Path) -> None:
    one = Wrapper(tmp_path, "one", sidecars[0].url, "", "sh", "-c", STUBBORN)
    alive = ALIVE.format(pids=one.pids_file)
    other = Wrapper(tmp_path, "other", sidecars[1].url, "", "sh", "-c", alive + POLITE)
    with killed_at_exit(one, other):
        one.start()
        await eventually(lambda: len(one.pids) == 4)
        other.start()
        await eventually(lambda: follows(sidecars[1]))
        one.send(signal.SIGSTOP)
        await eventually(lambda: len(one.began) == 2)
        assert [line for line in one.diary if line.startswith("beside")] == []
        assert run(one.pids) == []
        one.send(signal.SIGCONT)
        await eventually(lambda: "the work has ended" in one.output)


async def test_the_watchdog_blocks_every_signal_that_a_process_can_block(sidecars: Pair, tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "", "sh", "-c", POLITE)
    with killed_at_exit(wrapper):
        wrapper.start()
        await eventually(lambda: wrapper.began)
        watchdog = await eventually(lambda: wrapper.watchdog)
        blocked = blocked_signals(watchdog)
        assert blocked == set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}
        os.kill(watchdog, signal.SIGTERM)
        assert wrapper.stop(signal.SIGTERM) == 0
        assert "the watchdog ended" not in wrapper.output


async def test_a_program_whose_watchdog_ended_is_restarted(sidecars: Pair, tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "", "sh", "-c", POLITE)
    with killed_at_exit(wrapper):
        wrapper.start()
        await eventually(lambda: wrapper.began)
        first = wrapper.watchdog
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: len(wrapper.began) == 2)
        assert [line.split()[0] for line in wrapper.diary] == ["begin", "stop", "end", "begin"]
        assert "the watchdog ended" in wrapper.output
        assert await eventually(lambda: wrapper.watchdog) != first
        wrapper.stop(signal.SIGTERM)
