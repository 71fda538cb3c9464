"""`python -m ops.local` as a user runs it: real Redis, real Postgres, two tasks, real signals."""

import asyncio
import io
import json
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from ops.local.command import FORCE_AFTER
from ops.local.console import Console
from ops.local.definition import parse
from ops.local.guide import INDENTED
from ops.local.programs import spelled_out
from ops.local.runner import Runner
from ops.local.servers import RedisServer, redis_binary
from ops.local.settings import RunSettings, UsageError
from tests.ops.living import lives
from tests.support.ports import claim
from tests.support.waiting import LIMIT

ROOT = Path(__file__).parents[2]
LEASES = {"background_services", "daily_scheduler"}
PATIENCE = 60.0
"""Timeout in seconds, long because the machine may be busy."""

GRANT_TTL = 5.0
"""Value in `task-definition.json`, in seconds."""
MARGIN = 10.0
"""Seconds that the release and the test's own poll may take on a busy machine.

The sum of `GRANT_TTL` and `MARGIN` is less than the lease's ttl of 30 s.
"""

T = TypeVar("T")

pytestmark = pytest.mark.timeout(400)


class Run:
    """A `make run` with its own folder and ports."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.tasks = int(variables.get("RUN_TASKS", "2"))
        self.offset = free_offset(self.tasks)
        self.folder = folder
        self.output = folder / "screen"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "DATABASE_"))}
        with self.output.open("wb") as screen:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ops.local"],
                cwd=ROOT,
                env=inherited | {"RUN_FOLDER": str(folder), "RUN_PORT_OFFSET": str(self.offset)} | variables,
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=screen,
                start_new_session=True,
            )
        self.seen: dict[int, psutil.Process] = {}

    @property
    def screen(self) -> str:
        return self.output.read_text()

    def until(self, condition: Callable[[], T | None], within: float = PATIENCE) -> T:
        """Wait until `condition` returns a true result, at most `within` seconds, and return the result."""
        deadline = time.monotonic() + within
        while not (found := condition()):
            assert self.process.poll() is None, self.screen
            assert time.monotonic() < deadline, self.screen
            time.sleep(0.1)
        self.note_children()
        return found

    def until_shown(self, text: str, times: int = 1) -> None:
        self.until(lambda: self.screen.count(text) >= times)

    def until_ended_or_up(self) -> bool:
        """Wait until the run has started or ended, and return true if it has ended."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and "What happens" not in self.screen:
            assert time.monotonic() < deadline, self.screen
            time.sleep(0.1)
        return self.process.poll() is not None

    def note_children(self) -> list[psutil.Process]:
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self.seen |= {child.pid: child for child in children}
        return children

    def get(self, port: int, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port + self.offset}{path}", timeout=5) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        return None

    def status(self, task: int) -> dict[str, Any]:
        """Return `GET /status` of a task's sidecar; empty while the sidecar does not answer."""
        return self.get(4040 + 100 * (task - 1), "/status") or {}

    def leaders(self) -> dict[str, list[tuple[int, int]]]:
        """Return each lease's current leaders as (task, token)."""
        found: dict[str, list[tuple[int, int]]] = {name: [] for name in LEASES}
        for task in range(1, self.tasks + 1):
            for name, view in self.status(task).get("leases", {}).items():
                if view["is_leader"]:
                    found[name].append((task, view["token"]))
        return found

    def until_led(self) -> dict[str, list[tuple[int, int]]]:
        def led() -> dict[str, list[tuple[int, int]]] | None:
            leaders = self.leaders()
            return leaders if all(leaders.values()) else None

        return self.until(led)

    def newer(self, lease: str, token: int) -> tuple[int, int] | None:
        """Return a leader with a newer token; None without one.

        A stopping task may still report its old term for a moment.
        """
        return next((led for led in self.leaders()[lease] if led[1] > token), None)

    def pid(self, task: int, container: str) -> int:
        """Return the pid of a container from its last line on the screen."""
        line = re.compile(rf"^.*task{task} .*\b{container}(?: pid)? (\d+)", re.MULTILINE)
        return int(line.findall(self.screen)[-1])

    def end(self, number: signal.Signals) -> int:
        """Send the signal, and return the exit status once the run and all its child processes have ended.

        A SIGINT goes to the whole process group, as a terminal's Ctrl-C does.
        """
        self.note_children()
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while left := [child for child in self.seen.values() if lives(child)]:
            assert time.monotonic() < deadline, f"left running: {left}"
            time.sleep(0.05)
        return status


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def starter(folder: Path = tmp_path, **variables: str) -> Run:
        runs.append(Run(folder, **variables))
        return runs[-1]

    yield starter
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Yield a run that tests share and must leave running. Its lease times are shorter than in task-definition.json."""
    times = {"LEASE_TTL": "15", "HEARTBEAT_INTERVAL": "3", "GRANT_TTL": "3"}
    run = Run(tmp_path_factory.mktemp("run"), **times)
    run.until_shown("What happens")
    yield run
    status = run.end(signal.SIGINT)
    assert status == 0, run.screen
    assert ("nothing is left running" in run.screen) is sys.platform.startswith("linux")
    stopped = re.findall(r"task1/(\w+) +stopped$", run.screen, re.MULTILINE)
    assert stopped[-2:] == ["api", "sidecar"], "the order in which ECS stops containers"


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def free_offset(tasks: int = 2) -> int:
    while True:
        offset = random.randrange(1000, 22000, 200)  # below the ephemeral ports
        if claim(port + offset + 100 * task for port in (8080, 9101, 4040, 9102) for task in range(tasks)):
            return offset


def test_one_task_leads_each_lease_and_is_named_by_its_task_id(run: Run) -> None:
    leaders = run.until_led()
    assert all(len(found) == 1 for found in leaders.values())
    ids = {task: run.status(task)["instance_id"] for task in (1, 2)}
    assert all(re.fullmatch(r"[0-9a-f]{32}", task_id) for task_id in ids.values())
    for name, ((task, _),) in leaders.items():

        def is_named_by_both(name: str = name, holder: str = ids[task]) -> bool:
            return all(run.status(other)["leases"][name]["holder"] == holder for other in (1, 2))

        run.until(is_named_by_both)  # the follower may not have read the lease yet
        assert re.search(rf"{name} +task{task} leads", run.screen)


def test_the_failover_guard_is_on_although_a_task_leads_at_once(run: Run) -> None:
    assert run.status(1)["redis"]["guard"] == "on"


def test_live_values_change_and_are_the_same_from_every_task(run: Run) -> None:
    portfolio = re.findall(r"/portfolios/([0-9a-f-]{36})/live", run.screen)[0]
    first = run.until(lambda: run.get(8080, f"/portfolios/{portfolio}/live"))
    run.until(lambda: (run.get(8180, f"/portfolios/{portfolio}/live") or first)["value"] != first["value"])


def test_each_curl_line_works_when_pasted(run: Run) -> None:
    """The test parses each line as the shell does, and fetches the address itself, since curl may be missing."""
    found = re.findall(r"^  (curl .*)$", run.screen, re.MULTILINE)
    lines = [shlex.split(line.removesuffix(INDENTED)) for line in found]
    assert len(lines) >= 5
    for line in lines:
        addresses = [word for word in line[1:] if word.startswith("http://")]
        assert {word for word in line[1:] if word not in addresses} <= {"-s", "-N"}, line
        assert addresses
        for address in addresses:
            with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
                assert answer.status == 200
                assert answer.read1(64), address


def test_the_manual_job_works_when_pasted_in_any_folder(run: Run) -> None:
    (line,) = re.findall(r"^  (\(cd .* -m service run .*\))$", run.screen, re.MULTILINE)
    pasted = subprocess.run(
        ["/bin/sh", "-c", line], cwd="/", env={}, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert pasted.returncode == 0, pasted


def test_a_leader_s_killed_sidecar_is_restarted_and_adopts_its_term(run: Run) -> None:
    started = [psutil.Process(run.pid(task, "sidecar")).create_time() for task in (1, 2)]
    run.until(lambda: time.time() - max(started) > 6)
    ((task, token),) = run.until_led()[
        "background_services"
    ]  # read after the wait, since another task may lead after a standstill of the machine
    os.kill(run.pid(task, "sidecar"), signal.SIGKILL)
    run.until_shown("restarted in this task")
    run.until(lambda: run.leaders()["background_services"] == [(task, token)])
    run.until_shown(f"task{task} leads again, in the same term (token {token})")


@pytest.mark.slow
def test_a_disabled_lease_has_no_leader_until_the_key_expires(run: Run) -> None:
    (line,) = re.findall(r"^  (\S*redis-cli .* SET .* DISABLED EX )20$", run.screen, re.MULTILINE)
    name = re.findall(r"SET portfolio:(\w+):leader", line)[0]
    assert subprocess.run(["/bin/sh", "-c", f"{line} 10"], capture_output=True, check=True).stdout == b"OK\n"
    run.until(lambda: not run.leaders()[name])
    run.until_shown("nobody leads: an operator has disabled it")
    run.until_led()


@pytest.mark.slow
def test_a_leader_s_killed_api_has_its_task_replaced_while_another_leads(run: Run) -> None:
    ((task, token),) = run.until_led()["daily_scheduler"]
    old = run.status(task)["instance_id"]
    os.kill(run.pid(task, "api"), signal.SIGKILL)
    run.until_shown(f"it is essential: task{task} stops")
    run.until(lambda: run.newer("daily_scheduler", token))
    run.until_shown(f"task{task}               is healthy")
    assert run.status(task)["instance_id"] not in ("", old)


@pytest.mark.slow
def test_a_killed_redis_restarts_and_has_leaders_after_the_guard(run: Run) -> None:
    ((_, token),) = run.until_led()["daily_scheduler"]
    (redis,) = [child for child in run.note_children() if "redis-server" in child.name()]
    redis.kill()
    run.until_shown("is back")
    run.until_shown("the failover guard waits")
    run.until(lambda: run.newer("daily_scheduler", token))


@pytest.mark.slow
def test_three_tasks_have_one_leader_per_lease_and_a_new_one_within_the_grant_after_its_api_is_killed(
    start: Callable[..., Run],
) -> None:
    """The run has the times of the definition: a grant of 5 s, a lease of 30 s."""
    run = start(RUN_TASKS="3")
    run.until_shown("What happens")
    assert [run.get(8080 + 100 * task, "/healthz") is not None for task in range(3)] == [True] * 3
    leaders = run.until_led()
    assert [len(found) for found in leaders.values()] == [1, 1]

    ((task, token),) = leaders["background_services"]
    old = {name: run.pid(task, name) for name in ("api", "sidecar")}
    killed = time.monotonic()
    os.kill(old["api"], signal.SIGKILL)
    heir, _ = run.until(lambda: run.newer("background_services", token))
    assert time.monotonic() - killed < GRANT_TTL + MARGIN, run.screen
    assert heir != task

    run.until_shown(f"task{task}               is healthy")
    new = {name: run.pid(task, name) for name in old}
    assert not {*old.values()} & {*new.values()}
    assert not any(lives(pid) for pid in old.values())
    assert run.get(8080 + 100 * (task - 1), "/healthz") is not None
    run.until(lambda: run.status(task).get("leases", {}).get("background_services", {}).get("state") == "following")
    assert run.end(signal.SIGINT) == 0


@pytest.mark.slow
def test_the_caller_s_redis_with_an_account_serves_the_run_and_the_printed_line_asks_for_the_password(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    account = ("--user", "default", "off", "--user", "me", "on", ">hidden", "~*", "&*", "+@all")
    with RedisServer(tmp_path / "theirs", arguments=account) as server:
        password = tmp_path / "password"
        password.write_text("hidden\n")
        run = start(RUN_TASKS="1", REDIS_URL=server.url, REDIS_USERNAME="me", REDIS_PASSWORD_FILE=str(password))
        run.until_shown("What happens")
        run.until_led()
        (line,) = re.findall(r"^  (\S*redis-cli .*) DEL \S+$", run.screen, re.MULTILINE)
        pasted = subprocess.run(
            ["/bin/sh", "-c", f"{line} ACL WHOAMI"],
            input="hidden\n",
            capture_output=True,
            text=True,
            check=True,
            env={},
        )
        assert pasted.stdout.splitlines()[-1] == "me"
        assert run.end(signal.SIGINT) == 0
        assert "hidden" not in run.screen


def test_a_wrong_password_for_the_caller_s_redis_is_one_line(redis_server: RedisServer, tmp_path: Path) -> None:
    variables = {"REDIS_URL": redis_server.url, "REDIS_USERNAME": "me", "REDIS_PASSWORD": "hidden"}
    complaint = refused({"RUN_FOLDER": str(tmp_path), "RUN_PORT_OFFSET": str(free_offset())} | variables)
    assert complaint.startswith(f"run: REDIS_URL: redis://127.0.0.1:{redis_server.port}: ")
    assert "hidden" not in complaint


def test_a_second_ctrl_c_kills_the_remaining_processes(start: Callable[..., Run]) -> None:
    run = start(RUN_TASKS="1")
    run.until_shown("What happens")
    os.kill(run.pid(1, "api"), signal.SIGSTOP)
    run.process.send_signal(signal.SIGINT)
    run.until_shown("a second signal kills")
    time.sleep(FORCE_AFTER + 0.1)  # a second signal before this time would count as a repetition of the first
    assert run.end(signal.SIGINT) == 0
    assert "task1/api           stopped with 137 (SIGKILL)" in run.screen


def test_a_killed_runner_leaves_nothing(start: Callable[..., Run]) -> None:
    run = start(RUN_TASKS="1")
    run.until_shown("task1 leads")
    assert run.end(signal.SIGKILL) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("shown", ["as ECS would run them", "Redis ", "Postgres "])
def test_a_stop_during_the_start_leaves_nothing(start: Callable[..., Run], shown: str, number: signal.Signals) -> None:
    run = start()
    run.until_shown(shown)
    assert run.end(number) == 0
    assert "Traceback" not in run.screen


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("redis-server", "run: Redis ended soon after its start: "),
        ("initdb", "run: initdb failed in "),
        ("service migrate", "run: python -m service migrate failed: it exited with 137 (SIGKILL) (whole output: "),
    ],
)
@pytest.mark.slow
def test_a_process_killed_during_the_start_ends_the_run_with_one_line(
    start: Callable[..., Run], tmp_path: Path, program: str, expected: str
) -> None:
    """On a busy machine the process can end before the test finds it; then the test repeats the run."""
    for number in range(5):
        (folder := tmp_path / f"{number}").mkdir()
        run = start(folder)
        run.until_shown("Redis ")
        if kills(run, program) and run.until_ended_or_up():
            break
        assert run.end(signal.SIGINT) == 0
    assert run.process.wait(PATIENCE) == 2
    assert run.screen.splitlines()[-1].startswith(expected)
    assert "Traceback" not in run.screen


def kills(run: Run, program: str) -> bool:
    """Kill a child process with the text in its command line. Return false if the start ends before one is found."""
    while run.process.poll() is None and "What happens" not in run.screen:
        for child in run.note_children():
            if program in _command(child):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
                return True
        time.sleep(0.02)
    return False


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused(start: Callable[..., Run]) -> None:
    first = start()
    first.until_shown("as ECS would run them")
    second = refused({"RUN_FOLDER": str(first.folder), "RUN_PORT_OFFSET": str(free_offset())})
    assert second == f"run: another run uses {first.folder}; stop it, or set RUN_FOLDER and RUN_PORT_OFFSET\n"
    assert first.end(signal.SIGINT) == 0


def test_a_port_in_use_is_one_line_and_nothing_is_started(tmp_path: Path) -> None:
    offset = free_offset()
    with socket.create_server(("127.0.0.1", 8180 + offset)):
        complaint = refused({"RUN_FOLDER": str(tmp_path), "RUN_PORT_OFFSET": str(offset)})
    assert complaint.startswith(f"run: port {8180 + offset}, which task2/api (API_BIND) needs, is in use by ")


def test_two_containers_with_the_same_port_are_one_line_and_nothing_is_started(tmp_path: Path) -> None:
    offset = free_offset()
    clash = json.loads((ROOT / "task-definition.json").read_text())
    (sidecar,) = (entry for entry in clash["containerDefinitions"] if entry["name"] == "sidecar")
    (bind,) = (entry for entry in sidecar["environment"] if entry["name"] == "METRICS_BIND")
    bind["value"] = "0.0.0.0:8180"  # the port of the second task's API: the first task's port plus 100
    settings = RunSettings.read({"RUN_PORT_OFFSET": str(offset)}, tmp_path)
    console = Console(io.StringIO(), tmp_path, colours=False, closed=lambda: None)
    runner = Runner(spelled_out(parse(clash)), settings, {}, ROOT, console, asyncio.Event())
    with pytest.raises(UsageError) as refusal:
        runner.check()
    assert str(refusal.value) == (
        f"task1/sidecar (METRICS_BIND) and task2/api (API_BIND) both need port {8180 + offset}"
        " (the ports of each further task are 100 higher here)"
    )


def test_a_bad_setting_or_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "RUN_TASKS='none'" in refused({"RUN_TASKS": "none"})
    assert f"{tmp_path}/file" in refused({"RUN_FOLDER": f"{tmp_path}/file"})


@pytest.mark.parametrize(
    ("variable", "field"),
    [("LEASE_TTL", "container sidecar: LEASE_TTL: "), ("TRACKER_INTERVAL", "container api: TRACKER_INTERVAL: ")],
)
def test_a_bad_setting_of_a_container_is_one_line_and_nothing_is_started(
    tmp_path: Path, variable: str, field: str
) -> None:
    complaint = refused({"RUN_FOLDER": str(tmp_path), "RUN_PORT_OFFSET": str(free_offset()), variable: "soon"})
    assert complaint.startswith(f"run: {field}'soon' is not a")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "lock", tmp_path / "logs"]


def test_two_bad_settings_of_a_container_are_one_line(tmp_path: Path) -> None:
    offset = str(free_offset())
    complaint = refused({"RUN_FOLDER": str(tmp_path), "RUN_PORT_OFFSET": offset, "LEASE_TTL": "1"})
    assert re.fullmatch(r"run: container sidecar: GRANT_TTL: .*; HEARTBEAT_INTERVAL: .*\n", complaint)


def test_an_environment_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    file.mkdir()  # a folder, since root can write any file
    complaint = refused({"RUN_FOLDER": str(tmp_path), "RUN_PORT_OFFSET": str(free_offset())})
    assert complaint == f"run: {file}: cannot be written: Is a directory; set RUN_FOLDER\n"


@pytest.mark.parametrize("limit", [12, 16])
def test_too_low_a_limit_on_open_files_is_one_line(tmp_path: Path, limit: int) -> None:
    variables = {"RUN_FOLDER": str(tmp_path), "RUN_PORT_OFFSET": str(free_offset())}
    assert "Too many open files" in refused(variables, before=f"ulimit -n {limit}")


def test_an_error_is_reported_although_standard_output_is_closed(tmp_path: Path) -> None:
    variables = {"RUN_FOLDER": str(tmp_path), "RUN_PORT_OFFSET": str(free_offset()), "LEASE_TTL": "soon"}
    assert refused(variables, redirection=">&-").startswith("run: container sidecar: LEASE_TTL: 'soon' is not a")


@pytest.mark.parametrize(
    ("screen", "status", "complaint"),
    [
        ("/dev/full", 1, "run: the output cannot be written: No space left on device; the tasks were stopped\n"),
        ("a closed pipe", 0, ""),
    ],
)
def test_a_screen_that_cannot_be_written_stops_the_run_and_only_a_closed_pipe_is_no_failure(
    tmp_path: Path, screen: str, status: int, complaint: str
) -> None:
    if screen == "/dev/full":
        output = os.open(screen, os.O_WRONLY)
    else:
        reader, output = os.pipe()
        os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "ops.local"],
        cwd=ROOT,
        env=dict(os.environ) | {"RUN_FOLDER": str(tmp_path), "RUN_PORT_OFFSET": str(free_offset())},
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    os.close(output)
    assert (ended.returncode, ended.stderr) == (status, complaint)


def test_a_character_that_the_screen_lacks_does_not_end_the_run(start: Callable[..., Run], tmp_path: Path) -> None:
    (folder := tmp_path / "\N{HORIZONTAL ELLIPSIS}").mkdir()
    run = start(folder, PYTHONIOENCODING="latin-1")
    run.until_shown("as ECS would run them")
    assert run.end(signal.SIGINT) == 0, run.screen
    assert run.screen.endswith(f"Logs: {tmp_path}/\\u2026/logs\n")


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux gives the orphans of a child to the runner"
)
def test_a_process_in_another_session_that_outlives_its_parent_is_killed(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    server = tmp_path / "redis-server"
    server.write_text(f'#!/bin/sh\nsetsid sleep 100 &\necho $! >{pid}\nexec {redis_binary()} "$@"\n')
    server.chmod(0o755)
    run = start(REDIS_SERVER=str(server))
    run.until_shown("Redis ")
    left = psutil.Process(int(pid.read_text()))
    try:
        assert lives(left)
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(PATIENCE) == 0
        assert not lives(left)
    finally:
        with suppress(psutil.NoSuchProcess):
            left.kill()
    assert f"pid {left.pid} (sleep) was left over and has been killed" in run.screen


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux gives the orphans of a child to the runner"
)
def test_no_orphan_that_ends_during_the_run_stays_a_zombie(start: Callable[..., Run], tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    server = tmp_path / "redis-server"
    orphan = f"(setsid sleep 0.1 & echo $! >>{pids})"
    server.write_text(f'#!/bin/sh\n{orphan}\n{orphan}\nexec {redis_binary()} "$@"\n')
    server.chmod(0o755)
    run = start(REDIS_SERVER=str(server), RUN_TASKS="1")
    run.until_shown("What happens")
    orphans = [int(pid) for pid in pids.read_text().split()]
    assert len(orphans) == 2
    run.until(lambda: not any(map(psutil.pid_exists, orphans)), LIMIT)
    assert run.end(signal.SIGINT) == 0, run.screen


@pytest.mark.parametrize(("container", "leader"), [("api", "task1"), ("agent", "task1"), ("sidecar", None)])
def test_only_the_end_of_a_sidecar_ends_the_lead_of_its_task(
    tmp_path: Path, container: str, leader: str | None
) -> None:
    definition = spelled_out(parse(json.loads((ROOT / "task-definition.json").read_text())))
    console = Console(io.StringIO(), tmp_path, colours=False, closed=lambda: None)
    runner = Runner(definition, RunSettings.read({}, tmp_path), {}, ROOT, console, asyncio.Event())
    runner._board.seen("task1", "daily_scheduler", {"is_leader": True, "token": 7, "state": "leading"}, 0.0)
    runner.exited("task1", container)
    assert runner._board.leaders == {"daily_scheduler": leader}


@pytest.mark.parametrize("name", ["migrate.log", "task2-sidecar.log"])
def test_a_log_that_cannot_be_written_is_one_line_and_nothing_is_started(tmp_path: Path, name: str) -> None:
    log = tmp_path / "logs" / name
    log.mkdir(parents=True)  # a folder, since root can write any file
    complaint = refused({"RUN_FOLDER": str(tmp_path), "RUN_PORT_OFFSET": str(free_offset())})
    assert complaint == f"run: {log}: cannot be written: Is a directory; set RUN_FOLDER\n"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "lock", tmp_path / "logs"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REDIS_URL", "redis://:hidden@127.0.0.1:1/0"),
        ("REDIS_URL", "http://:hidden@127.0.0.1:1/0"),
        ("DATABASE_URL", "postgresql://me:hidden@127.0.0.1:1/db"),
    ],
)
def test_an_unusable_server_of_the_caller_is_one_line_without_its_password(
    tmp_path: Path, variable: str, value: str
) -> None:
    offset = str(free_offset())
    complaint = refused({"RUN_FOLDER": str(tmp_path), "RUN_PORT_OFFSET": offset, variable: value})
    assert variable in complaint or "database" in complaint
    assert "hidden" not in complaint


def refused(variables: dict[str, str], *, before: str = ":", redirection: str = "") -> str:
    """Start a run that must fail, and return its single line of output.

    Args:
        variables: additional environment variables.
        before: a shell command that is executed before the run.
        redirection: a redirection of the run's output, in the syntax of the shell.
    """
    ended = subprocess.run(
        ["/bin/sh", "-c", f'{before}; exec "$@" {redirection}', "sh", sys.executable, "-m", "ops.local"],
        cwd=ROOT,
        env=dict(os.environ) | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 2, ended
    assert ended.stderr.count("\n") == 1
    return ended.stderr
