"""The operator's commands, with a real Redis and a real sidecar."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from ops.local.servers import RedisServer, free_port
from sidecar.__main__ import main
from tests.sidecar.test_process import STEADY
from tests.support.processes import ROOT, RealSidecar, get_json, killed_at_exit
from tests.support.waiting import eventually

KEY = "portfolio:background_services:leader"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit status, standard output and standard error of `python -m sidecar WORDS`."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)

    def run(*words: str, **environment: str) -> tuple[int, str, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        status = main(list(words))
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_leaders_shows_each_holder_and_the_last_token(redis: Redis, run: Run) -> None:
    redis.set(KEY, "task-1", px=20_000)
    redis.hset(f"fence:{{{KEY}}}", "token", 17)
    status, output, _ = run("leaders")
    head, first, second = output.splitlines()
    assert status == 0
    assert head.split("  ")[0] == "lease"
    assert first.split()[:2] == ["background_services", "task-1"]
    assert 15 < float(first.split()[2]) <= 20
    assert first.split()[3] == "17"
    assert second.split() == ["daily_scheduler", "nobody", "-", "-"]


def test_a_key_without_an_expiry_shows_no_remaining_time(redis: Redis, run: Run) -> None:
    redis.set(KEY, "task-1")
    assert run("leaders")[1].splitlines()[1].split() == ["background_services", "task-1", "-", "-"]


def test_disable_equals_the_manual_steps_of_the_guide(redis: Redis, run: Run) -> None:
    redis.set(KEY, "task-1", px=20_000)
    assert run("disable", "background_services", "3600") == (
        0,
        "background_services is disabled for 3600 s; it was held by task-1\n",
        "",
    )
    assert redis.get(KEY) == "DISABLED"
    assert 3590 < redis.ttl(KEY) <= 3600


def test_enable_ends_a_disable_and_does_not_change_any_other_holder(redis: Redis, run: Run) -> None:
    redis.set(KEY, "disabled", px=20_000)
    assert run("enable", "background_services")[0] == 0
    assert redis.get(KEY) is None
    redis.set(KEY, "task-1", px=20_000)
    status, output, errors = run("enable", "background_services")
    assert (status, output) == (1, "")
    assert errors == "sidecar: background_services is not disabled: it is held by task-1\n"
    assert redis.get(KEY) == "task-1"


def test_a_key_with_an_empty_value_is_not_shown_as_nobody(redis: Redis, run: Run) -> None:
    redis.set(KEY, "")
    errors = run("enable", "background_services")[2]
    assert errors == "sidecar: background_services is not disabled: it is held by an empty value\n"
    output = run("disable", "background_services", "60")[1]
    assert output == "background_services is disabled for 60 s; it was held by an empty value\n"


def test_disable_replaces_a_key_that_is_not_a_string(redis: Redis, run: Run) -> None:
    redis.lpush(KEY, "x")
    output = run("disable", "background_services", "60")[1]
    assert output == "background_services is disabled for 60 s; it was held by a value that could not be read\n"
    assert redis.get(KEY) == "DISABLED"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["disable", "nothing", "60"], "'nothing'"),
        (["enable", "nothing"], "'nothing'"),
        (["disable", "background_services", "0"], "'0'"),
        (["disable", "background_services", "1h"], "'1h'"),
        (["disable", "background_services", "2592001"], "'2592001'"),
        (["disable", "background_services"], "disable LEASE SECONDS"),
        (["lead"], "'lead'"),
    ],
)
def test_an_invalid_argument_is_named_in_one_line(redis: Redis, run: Run, words: list[str], named: str) -> None:
    status, output, errors = run(*words)
    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert named in errors
    assert not redis.keys()


def test_an_unreachable_redis_is_named_in_one_line(run: Run) -> None:
    status, output, errors = run("leaders", REDIS_URL=f"redis://127.0.0.1:{free_port()}")
    assert (status, output) == (1, "")
    assert errors.startswith("sidecar: Redis at redis://127.0.0.1:")
    assert errors.count("\n") == 1


def test_a_refused_password_is_not_shown(redis_server: RedisServer, run: Run) -> None:
    status, _, errors = run("leaders", REDIS_PASSWORD="hunter2")
    assert status == 1
    assert "hunter2" not in errors
    assert errors.count("\n") == 1


def test_each_command_says_that_the_password_is_missing(any_server: RedisServer, any_redis: Redis, run: Run) -> None:
    """Before the login, Redis answers an EVAL with many arguments with a protocol error."""
    lease = "background_services"
    commands = ["leaders", f"history {lease}", f"fence {lease}", f"step-down {lease}", f"disable {lease} 9"]
    any_redis.config_set("requirepass", "hunter2")
    try:
        printed = {words: run(*words.split(), REDIS_URL=any_server.url) for words in commands}
    finally:
        any_redis.config_set("requirepass", "")
    error = f"sidecar: Redis at redis://127.0.0.1:{any_server.port}: Authentication required.\n"
    assert printed == dict.fromkeys(commands, (1, "", error))


def test_a_closed_pipe_causes_no_traceback() -> None:
    out, into = os.pipe()
    os.close(out)
    try:
        words = [sys.executable, "-m", "sidecar", "--help"]
        ended = subprocess.run(words, cwd=ROOT, stdout=into, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(into)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize("words", [["leaders"], ["leaders", "--json"], ["watch"], ["--help"]])
def test_a_full_disk_is_a_one_line_error(redis: Redis, redis_server: RedisServer, words: list[str]) -> None:
    environment = os.environ | {"REDIS_URL": redis_server.url}
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "sidecar", *words]
        ended = subprocess.run(command, cwd=ROOT, env=environment, stdout=full, stderr=subprocess.PIPE, check=False)
    expected = b"sidecar: the output cannot be written: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (1, expected)


def test_status_without_a_sidecar_is_a_one_line_error(run: Run) -> None:
    status, output, errors = run("status", CONTROL_BIND=f"127.0.0.1:{free_port()}")
    assert (status, output) == (1, "")
    assert errors.startswith("sidecar: no sidecar answers at http://127.0.0.1:")
    assert "Connection refused" in errors
    assert errors.count("\n") == 1


async def test_a_leader_stops_at_disable_and_leads_again_at_enable(
    redis_server: RedisServer, tmp_path: Path, run: Run
) -> None:
    sidecar = RealSidecar(tmp_path, redis_server, "task-1", REQUIRE_CLIENT="false", **STEADY)
    there = {"LEASES": "background_services", "LEASE_KEY": f"{tmp_path.name}:{{name}}"}

    async def is_in_state(state: str) -> bool:
        status = await get_json(f"{sidecar.url}/status")
        return bool(status) and status["leases"]["background_services"]["state"] == state

    with killed_at_exit(sidecar):
        sidecar.start()
        await eventually(lambda: is_in_state("leading"))
        assert (await asyncio.to_thread(run, "disable", "background_services", "600", **there))[0] == 0
        await eventually(lambda: is_in_state("disabled"))
        assert (await asyncio.to_thread(run, "enable", "background_services"))[0] == 0
        await eventually(lambda: is_in_state("leading"))
        status, output, _ = await asyncio.to_thread(run, "status", CONTROL_BIND=sidecar.url.removeprefix("http://"))
    assert status == 0
    assert json.loads(output)["leases"]["background_services"]["holder"] == "task-1"


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["fence"], "fence LEASE [--dry-run] [--above TOKEN] [--json]"),
        (["disable", "tracker"], "disable LEASE SECONDS [--reason TEXT] [--json]"),
        (["disable", "tracker", "60", "--reason"], "disable LEASE SECONDS [--reason TEXT] [--json]"),
        (["enable"], "enable LEASE [--json]"),
        (["leaders", "tracker"], "leaders [--json]"),
        (["watch", "tracker"], "watch [--json]"),
        (["history"], "history LEASE [--json]"),
        (["step-down", "--json"], "step-down LEASE [--json]"),
        (["healthcheck", "tracker"], "healthcheck"),
    ],
)
def test_a_command_with_wrong_arguments_prints_its_usage(run: Run, words: list[str], usage: str) -> None:
    assert run(*words) == (2, "", f"sidecar: usage: {usage}\n")


@pytest.mark.parametrize(
    "answer", ["$abc\r\n", "+OK\r\n", "*1\r\n$1\r\nx\r\n", "*14\r\n" + 14 * "$1\r\nx\r\n", "HTTP/1.1 400\r\n", ""]
)
@pytest.mark.parametrize(
    "words", [["leaders"], ["disable", "background_services", "60"], ["enable", "background_services"]]
)
async def test_a_server_that_is_not_redis_is_a_one_line_error(run: Run, answer: str, words: list[str]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer.encode())
        writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        status, output, errors = await asyncio.to_thread(run, *words, REDIS_URL=f"redis://127.0.0.1:{port}")
    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert errors.startswith("sidecar: ")


def test_the_sidecar_imports_no_operator_command_at_start() -> None:
    """The imports of the commands would only add memory and time to the start."""
    program = "import sys, sidecar.__main__, sidecar.run; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not [name for name in ended.stdout.split() if name.startswith("sidecar.commands")]
