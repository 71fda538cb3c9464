"""The life cycle of a task, with small shell scripts as containers: start order, stop order, health, restarts."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ops.local import processes
from ops.local.containers import Pace, first_of
from ops.local.definition import TaskDefinition, parse
from ops.local.tasks import Task
from tests.ops.living import lives
from tests.support.waiting import eventually

SERVE = 'trap "echo $NAME ends >>order; exit 0" TERM; echo $NAME begins >>order; while :; do sleep 0.02; done'
"""Command that runs until SIGTERM."""
STUBBORN = 'trap "" TERM; echo $NAME begins >>order; while :; do sleep 0.02; done'
"""Command that ignores SIGTERM."""

QUICK = Pace(start_probe=0.02, restart_attempt_period=0.2)


class RecordingJournal:
    def __init__(self) -> None:
        self.events: list[str] = []
        self.written = b""

    def event(self, who: str, text: str) -> None:
        self.events.append(f"{who} {text}")

    def output(self, who: str, chunk: bytes) -> None:
        self.written += chunk


def container(name: str, script: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "test", "entryPoint": ["/bin/sh", "-c"], "command": [script]} | fields


def after(name: str, condition: str) -> dict[str, Any]:
    return {"dependsOn": [{"containerName": name, "condition": condition}]}


def probe(script: str) -> dict[str, Any]:
    return {"healthCheck": {"command": ["CMD-SHELL", script]}}


def define(*containers: dict[str, Any], stop_timeout: float = 20, interval: float = 0.05) -> TaskDefinition:
    """Return a definition with shorter times than ECS allows."""
    checked = parse({"family": "test", "containerDefinitions": list(containers)})
    quick = [
        entry.model_copy(
            update={
                "stop_timeout": stop_timeout,
                "health_check": entry.health_check and entry.health_check.model_copy(update={"interval": interval}),
            }
        )
        for entry in checked.container_definitions
    ]
    return checked.model_copy(update={"container_definitions": quick})


def new_task(
    folder: Path, definition: TaskDefinition, pace: Pace = QUICK, **options: Any
) -> tuple[Task, RecordingJournal]:
    journal = RecordingJournal()
    environments = {
        entry.name: {"PATH": os.environ["PATH"], "NAME": entry.name} for entry in definition.container_definitions
    }
    task = Task(
        definition, "task1", "0" * 32, environments=environments, folder=folder, journal=journal, pace=pace, **options
    )
    return task, journal


@asynccontextmanager
async def running(task: Task) -> AsyncIterator["asyncio.Task[str]"]:
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        run = group.create_task(task.run())
        yield run
        task.stop("the test ends")


def order(folder: Path) -> list[str]:
    file = folder / "order"
    return file.read_text().splitlines() if file.exists() else []


async def test_a_container_starts_once_its_dependency_is_healthy(tmp_path: Path) -> None:
    sidecar = container("sidecar", SERVE, **probe("test -e well"))
    definition = define(container("api", SERVE, **after("sidecar", "HEALTHY")), sidecar, interval=10)
    task, _ = new_task(tmp_path, definition)
    async with running(task):
        await eventually(lambda: order(tmp_path) == ["sidecar begins"])
        await asyncio.sleep(0.1)
        assert not task.containers["api"].started.is_set()
        (tmp_path / "well").touch()
        await asyncio.wait_for(task.steady.wait(), 20)
        await eventually(lambda: order(tmp_path) == ["sidecar begins", "api begins"])


async def test_containers_stop_in_the_reverse_of_their_order(tmp_path: Path) -> None:
    definition = define(
        container("first", SERVE),
        container("second", SERVE, **after("first", "START")),
        container("third", SERVE, **after("second", "START")),
    )
    task, _ = new_task(tmp_path, definition)
    async with running(task) as run:
        await eventually(lambda: len(order(tmp_path)) == 3)
        task.stop("enough")
    assert run.result() == "enough"
    assert order(tmp_path)[3:] == ["third ends", "second ends", "first ends"]


async def test_a_container_that_ignores_sigterm_is_killed_after_its_stop_timeout(tmp_path: Path) -> None:
    definition = define(
        container("api", STUBBORN, **after("sidecar", "START")), container("sidecar", SERVE), stop_timeout=3
    )
    task, journal = new_task(tmp_path, definition)
    async with running(task):
        await eventually(lambda: len(order(tmp_path)) == 2)
        began = time.monotonic()
        task.stop("enough")
    assert time.monotonic() - began >= 3
    assert "task1/api still runs 3 s after SIGTERM (stopTimeout): SIGKILL" in journal.events
    assert "task1/api stopped with 137 (SIGKILL)" in journal.events
    assert order(tmp_path)[2:] == ["sidecar ends"]


async def test_the_exit_of_an_essential_container_stops_its_task(tmp_path: Path) -> None:
    exits: list[tuple[str, str]] = []
    definition = define(container("api", "exit 3", **after("sidecar", "START")), container("sidecar", SERVE))
    task, journal = new_task(tmp_path, definition, exited=lambda label, name: exits.append((label, name)))
    async with running(task) as run:
        await run
    assert run.result() == "essential container api exited with 3"
    assert exits == [("task1", "api"), ("task1", "sidecar")]
    assert journal.events[0] == "task1/api exited with 3; it is essential: task1 stops"


async def test_the_exit_of_an_optional_container_does_not_stop_its_task(tmp_path: Path) -> None:
    definition = define(container("api", SERVE), container("helper", "exit 0", essential=False))
    task, _ = new_task(tmp_path, definition)
    async with running(task) as run:
        await asyncio.wait_for(task.containers["helper"].over.wait(), 20)
        assert not task.stopping.is_set()
        assert not run.done()


async def test_an_optional_container_that_does_not_start_leaves_its_task_healthy(tmp_path: Path) -> None:
    missing = {"name": "helper", "image": "test", "essential": False, "entryPoint": ["/no/such/program"]}
    unwell = container("monitor", SERVE, essential=False, **probe("false"))
    task, journal = new_task(tmp_path, define(container("api", SERVE, **probe("true")), missing, unwell))
    async with running(task):
        await asyncio.wait_for(task.steady.wait(), 20)
    assert "task1/helper cannot be started: /no/such/program: No such file or directory" in journal.events


async def test_success_is_awaited_and_a_failure_starts_nothing(tmp_path: Path) -> None:
    setup = container("setup", "test -e ready && echo setup >>order", essential=False)
    definition = define(container("api", SERVE, **after("setup", "SUCCESS")), setup)
    failing, journal = new_task(tmp_path, definition)
    async with running(failing) as run:
        await run
    assert run.result() == "setup did not become SUCCESS"
    assert order(tmp_path) == []
    assert "task1/api does not start: setup did not become SUCCESS" in journal.events

    (tmp_path / "ready").touch()
    task, _ = new_task(tmp_path, definition)
    async with running(task):
        await eventually(lambda: order(tmp_path) == ["setup", "api begins"])


async def test_complete_is_an_end_with_any_exit_code(tmp_path: Path) -> None:
    definition = define(
        container("api", SERVE, **after("setup", "COMPLETE")), container("setup", "exit 1", essential=False)
    )
    task, _ = new_task(tmp_path, definition)
    async with running(task):
        await eventually(lambda: order(tmp_path) == ["api begins"])


async def test_a_dependency_that_is_not_healthy_in_time_stops_the_task(tmp_path: Path) -> None:
    sidecar = container("sidecar", SERVE, **probe("exit 1"), startTimeout=5)
    definition = define(container("api", SERVE, **after("sidecar", "HEALTHY")), sidecar, interval=60)
    task, _ = new_task(tmp_path, definition)
    async with running(task) as run:
        await run
    assert run.result() == "sidecar did not become HEALTHY within 5 s (startTimeout)"
    assert order(tmp_path) == ["sidecar begins", "sidecar ends"]


async def test_an_unhealthy_essential_container_stops_its_task(tmp_path: Path) -> None:
    definition = define(container("api", SERVE, **probe("test ! -e ill || { echo feverish; exit 1; }")))
    task, journal = new_task(tmp_path, definition)
    async with running(task) as run:
        await asyncio.wait_for(task.steady.wait(), 20)
        await eventually(lambda: order(tmp_path) == ["api begins"])
        (tmp_path / "ill").touch()
        await run
    assert run.result() == "essential container api is unhealthy"
    assert "task1/api is UNHEALTHY: feverish" in journal.events
    assert order(tmp_path) == ["api begins", "api ends"]


async def test_a_restart_policy_starts_the_container_again_within_its_task(tmp_path: Path) -> None:
    definition = define(
        container("api", SERVE),
        container("sidecar", SERVE, restartPolicy={"enabled": True, "restartAttemptPeriod": 60}),
    )
    task, journal = new_task(tmp_path, definition)
    async with running(task):
        await eventually(lambda: len(order(tmp_path)) == 2)
        await asyncio.sleep(QUICK.restart_attempt_period + 0.05)
        first = task.containers["sidecar"].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: order(tmp_path).count("sidecar begins") == 2)
        second = task.containers["sidecar"].pid
        assert second != first
        assert not task.stopping.is_set()
    assert f"task1/sidecar runs again: pid {second}" in journal.events
    assert any("exited with 137 (SIGKILL)" in event and "restarted in this task" in event for event in journal.events)


@pytest.mark.parametrize(
    "optional",
    [
        container("optional", "exit 0"),
        container("optional", SERVE, **probe("false")),
        container("optional", "never", entryPoint=["/no/such/program"]),
    ],
    ids=["ends", "is ill", "cannot be started"],
)
async def test_a_task_is_steady_when_its_essential_containers_are(tmp_path: Path, optional: dict[str, Any]) -> None:
    definition = define(container("api", SERVE, **probe("true")), optional | {"essential": False})
    task, _ = new_task(tmp_path, definition)
    async with running(task):
        await asyncio.wait_for(task.steady.wait(), 20)
        assert task.pids["api"] == task.containers["api"].pid


async def test_a_container_that_exits_too_soon_is_not_restarted(tmp_path: Path) -> None:
    policy = {"enabled": True, "restartAttemptPeriod": 60}
    slow = Pace(start_probe=0.02, restart_attempt_period=30)  # a busy machine may take seconds to start a shell
    task, journal = new_task(tmp_path, define(container("sidecar", "exit 1", restartPolicy=policy)), slow)
    async with running(task) as run:
        await run
    assert "restartPolicy needs 30 s (on ECS 60 s)" in run.result()
    assert len(journal.events) == 1


async def test_the_last_line_of_a_container_that_fails_is_reported(tmp_path: Path) -> None:
    words = "echo starting; echo 'API_BIND: no such address' >&2; "
    for end, reported in ("exit 2", True), ("exit 0", False), ("kill -9 $$", False):
        task, journal = new_task(tmp_path, define(container("api", words + end)))
        async with running(task) as run:
            await run
        assert ("last line 'API_BIND: no such address'" in journal.events[0]) == reported, journal.events


async def test_an_ignored_exit_code_is_not_restarted(tmp_path: Path) -> None:
    policy = {"enabled": True, "ignoredExitCodes": [2], "restartAttemptPeriod": 60}
    task, _ = new_task(tmp_path, define(container("sidecar", "sleep 0.3; exit 2", restartPolicy=policy)))
    async with running(task) as run:
        await run
    result = run.result()
    assert result == "essential container sidecar exited with 2; restartPolicy does not restart it after this status"


async def test_a_command_that_does_not_exist_stops_the_task_with_its_name(tmp_path: Path) -> None:
    definition = define({"name": "api", "image": "test", "command": ["/no/such/program"]}, container("sidecar", SERVE))
    task, _ = new_task(tmp_path, definition)
    async with running(task) as run:
        await run
    assert run.result() == "essential container api cannot be started: /no/such/program: No such file or directory"


async def test_the_child_processes_of_a_container_end_with_it(tmp_path: Path) -> None:
    task, _ = new_task(tmp_path, define(container("api", "sleep 60 & echo $! >child; exit 0")))
    async with running(task) as run:
        await run
    child = int((tmp_path / "child").read_text())
    await eventually(lambda: not lives(child))


async def test_all_output_of_a_container_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LAST_WORDS", 30.0)
    task, journal = new_task(
        tmp_path, define(container("api", "i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo $i; done; echo last >&2"))
    )
    async with running(task) as run:
        await run
    assert journal.written.split() == [*(str(number).encode() for number in range(1, 5001)), b"last"]


async def test_a_kill_ends_an_orderly_stop_at_once(tmp_path: Path) -> None:
    task, _ = new_task(tmp_path, define(container("api", STUBBORN), stop_timeout=60))
    async with running(task):
        await eventually(lambda: order(tmp_path) == ["api begins"])
        task.stop("enough")
        await asyncio.sleep(0.05)
        task.kill()


async def test_a_cancelled_run_leaves_no_process(tmp_path: Path) -> None:
    task, _ = new_task(tmp_path, define(container("api", STUBBORN), stop_timeout=60))
    run = asyncio.create_task(task.run())
    await eventually(lambda: order(tmp_path) == ["api begins"])
    pid = task.containers["api"].pid
    assert pid is not None
    run.cancel()
    await asyncio.wait([run])
    assert run.cancelled()
    assert not lives(pid)


async def test_first_of_returns_at_an_event_or_at_its_timeout() -> None:
    one, other = asyncio.Event(), asyncio.Event()
    await first_of(one, other, timeout=0.01)
    other.set()
    await asyncio.wait_for(first_of(one, other), 5)
