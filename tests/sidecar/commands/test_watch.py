"""`python -m sidecar watch` in a real terminal, in a pipe, and through failures of a real Redis."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from ops.local.servers import RedisServer, free_port
from tests.sidecar.conftest import client_of
from tests.support.processes import Process, command_of, killed_at_exit
from tests.support.redis_rights import LEAST, give, user
from tests.support.script_caller import FENCE, KEY, Caller
from tests.support.terminal import Terminal
from tests.support.waiting import eventually

LEASE = "background_services"
WATCH = ("-m", "sidecar", "watch")


def remaining(terminal: Terminal) -> float:
    """The remaining seconds of the lease on the screen; -1 if the screen shows no time."""
    found = re.search(rf"^{LEASE}  .*?  +([0-9.]+)  ", terminal.shown, re.MULTILINE)
    return float(found.group(1)) if found else -1.0


def piped(folder: Path, *options: str, **environment: str) -> Process:
    """`python -m sidecar watch` with its output in a file."""
    return command_of("sidecar", folder / "watched", "watch", *options, **environment)


def scripts(redis: Redis) -> int:
    """The number of scripts that Redis has run."""
    return int(redis.info("commandstats")["cmdstat_eval"]["calls"])


def lines(process: Process) -> list[str]:
    return process.output.splitlines()


def shows(process: Process, *texts: str) -> Callable[[], bool]:
    """A condition that is true once the last line contains these texts."""
    return lambda: bool(lines(process)) and all(text in lines(process)[-1] for text in texts)


async def test_the_screen_shows_time_and_changes_and_ctrl_c_restores_the_terminal(
    redis: Redis, redis_server: RedisServer
) -> None:
    redis.set(KEY, "task-1", px=25_000)
    with Terminal(WATCH, {"REDIS_URL": redis_server.url}) as terminal:
        await eventually(lambda: "task-1" in terminal.shown)
        first = remaining(terminal)
        assert 0 < first <= 25
        assert (terminal.screens.is_second, terminal.screens.has_cursor) == (True, False)
        await eventually(lambda: 0 < remaining(terminal) < first)
        redis.set(KEY, "task-2", px=25_000)
        await eventually(lambda: f"{LEASE}  task-2" in terminal.shown)
        await eventually(lambda: f"{LEASE}  held by task-2" in terminal.shown)
        redis.delete(KEY)
        await eventually(lambda: f"{LEASE}  nobody" in terminal.shown)
        terminal.press("\x03")
        assert terminal.status() == 0
        assert "Traceback" not in terminal.output
        assert (terminal.screens.is_second, terminal.screens.has_cursor) == (False, True)
        assert f"{LEASE}  nobody" in terminal.shown, "the last table stays"


PATIENT = """
import sys
from sidecar.__main__ import console
from sidecar.commands import changes
changes.LONGEST_POLL = 3_600.0
sys.argv = ["sidecar", "watch"]
console()
"""
"""A program that runs `watch` with an hour between polls, so that it looks only after a change or an expiry."""


async def test_the_time_moves_without_commands_to_redis(redis: Redis, redis_server: RedisServer) -> None:
    redis.set(KEY, "task-1", px=60_000)
    with Terminal(("-c", PATIENT), {"REDIS_URL": redis_server.url}) as terminal:
        await eventually(lambda: 0 < remaining(terminal) < 55)


async def test_an_expired_lease_is_shown_at_once(redis: Redis, redis_server: RedisServer) -> None:
    redis.set(KEY, "task-1", px=1_500)
    with Terminal(WATCH, {"REDIS_URL": redis_server.url}) as terminal:
        await eventually(lambda: f"{LEASE}  nobody leads" in terminal.shown)


async def test_a_disable_shows_its_reason(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    words = ("disable", LEASE, "600", "--reason", "a reason of its own")
    with (
        Terminal(WATCH, {"REDIS_URL": redis_server.url}) as terminal,
        killed_at_exit(piped(tmp_path, REDIS_URL=redis_server.url)),
    ):
        await eventually(lambda: f"{LEASE}  nobody" in terminal.shown)
        async with command_of("sidecar", tmp_path / "disable", *words, REDIS_URL=redis_server.url) as disable:
            await disable.end()
        await eventually(lambda: re.search(rf"^{LEASE}  DISABLED", terminal.shown, re.MULTILINE))
        assert re.search(r"disabled by \S+@\S+: a reason of its own", " ".join(terminal.shown.split()))


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50), (40, 8), (1, 1), (0, 0)])
async def test_the_output_never_exceeds_the_terminal_with_any_names(
    redis: Redis, redis_server: RedisServer, columns: int, rows: int
) -> None:
    lease = "l" * 64
    redis.set(f"portfolio:{lease}:leader", "語" * 60, px=60_000)
    with Terminal(WATCH, {"REDIS_URL": redis_server.url, "LEASES": lease}, columns=columns, lines=rows) as terminal:
        await eventually(lambda: terminal.screens.is_second and terminal.shown)
        for _ in range(5):
            redis.set(f"portfolio:{lease}:leader", "x" * 128, px=60_000)
            redis.delete(f"portfolio:{lease}:leader")
        terminal.send(signal.SIGINT)  # not a key press, because the terminal could echo it
        assert terminal.status() == 0
        assert terminal.screens.widest <= max(20, min(columns or 80, 80))
        assert terminal.output.count("\n", 0, terminal.output.index("\x1b[J")) < (rows or 24)


async def test_a_resize_of_the_terminal_is_drawn_at_once(
    redis: Redis, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = "h" * 128
    redis.set(KEY, holder)
    with Terminal(WATCH, {"REDIS_URL": redis_server.url}, columns=40) as terminal:
        await eventually(lambda: "hhh" in terminal.shown)
        narrow = terminal.shown.count("h")
        terminal.resize(80, 24)
        await eventually(lambda: terminal.shown.count("h") > narrow + 20)


async def test_ctrl_z_restores_the_terminal_and_fg_draws_the_screen_again(
    redis: Redis, redis_server: RedisServer
) -> None:
    with Terminal(WATCH, {"REDIS_URL": redis_server.url}) as terminal:
        await eventually(lambda: f"{LEASE}  nobody" in terminal.shown)
        terminal.press("\x1a")
        await eventually(lambda: not terminal.screens.is_second and terminal.screens.has_cursor)
        await eventually(
            lambda: Path(f"/proc/{terminal.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        )
        redis.set(KEY, "task-1")
        terminal.send(signal.SIGCONT)
        await eventually(lambda: terminal.screens.is_second and f"{LEASE}  task-1" in terminal.shown)
        terminal.press("\x03")
        assert terminal.status() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_every_other_signal_restores_the_terminal(
    redis: Redis, redis_server: RedisServer, number: signal.Signals
) -> None:
    with Terminal(WATCH, {"REDIS_URL": redis_server.url}) as terminal:
        await eventually(lambda: f"{LEASE}  nobody" in terminal.shown)
        terminal.send(number)
        assert terminal.status() == 0
        assert (terminal.screens.is_second, terminal.screens.has_cursor) == (False, True)


async def test_a_failed_first_look_is_a_one_line_error_without_a_screen(redis_server: RedisServer) -> None:
    with Terminal(WATCH, {"REDIS_URL": f"redis://127.0.0.1:{free_port()}"}) as terminal:
        assert terminal.status() == 1
        assert re.fullmatch(r"sidecar: Redis at redis://127.0.0.1:\d+: [^\n]+\n", terminal.output.replace("\r", ""))


INTERRUPTED = """
import os, signal, sys
from sidecar import __main__ as program
mask = signal.pthread_sigmask
def block(how, numbers):
    before = mask(how, numbers)
    if how == signal.SIG_BLOCK:
        os.kill(os.getpid(), signal.SIGINT)
    return before
signal.pthread_sigmask = block
sys.argv = ["sidecar", "watch"]
program.console()
"""
"""A program that runs `watch`, with one Ctrl-C during its start and another during its end."""


async def test_a_ctrl_c_during_the_start_or_the_end_prints_no_traceback(
    redis: Redis, redis_server: RedisServer
) -> None:
    with Terminal(("-c", INTERRUPTED), {"REDIS_URL": redis_server.url}) as terminal:
        assert terminal.status() == 0
        assert "Traceback" not in terminal.output


async def test_a_pipe_gets_one_line_for_each_change_and_none_for_a_renewal(
    redis: Redis, redis_server: RedisServer, tmp_path: Path
) -> None:
    caller = Caller(redis)
    async with piped(tmp_path, REDIS_URL=redis_server.url) as watching:
        await eventually(lambda: len(lines(watching)) == 2)
        token = caller.acquire().token
        await eventually(shows(watching, LEASE, f"held by a, token {token}"))
        caller.ttl = 20_000
        looks = scripts(redis)
        assert caller.renew(token).outcome == "renewed"
        await eventually(lambda: scripts(redis) >= looks + 1 + 2)  # the renewal, and a look at each lease
        redis.hset(FENCE, "step_down", token)
        redis.publish(f"{KEY}:changed", "step-down")
        await eventually(shows(watching, "asked to step down"))
        caller.release(token)
        await eventually(shows(watching, LEASE, "nobody leads"))
        assert watching.stop(signal.SIGINT) == 0
    printed = lines(watching)
    assert len(printed) == 5, printed
    assert all(re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z  ", line) for line in printed)
    assert "\x1b" not in watching.output


async def test_with_json_each_line_is_an_object(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    async with piped(tmp_path, "--json", REDIS_URL=redis_server.url) as watching:
        await eventually(lambda: len(lines(watching)) == 2)
        token = int(Caller(redis).acquire().token)
        await eventually(lambda: len(lines(watching)) == 3)
        assert watching.stop(signal.SIGINT) == 0
    first, _, last = watching.lines()
    assert (first["lease"], first["state"], first["holder"]) == (LEASE, "vacant", None)
    assert (last["lease"], last["state"], last["holder"], last["token"]) == (LEASE, "held", "a", token)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", last["time"])


@pytest.mark.parametrize("options", [(), ("--json",)])
async def test_a_restart_of_redis_is_reported_and_the_watch_continues(tmp_path: Path, options: tuple[str, ...]) -> None:
    server = RedisServer(tmp_path / "redis")
    with server:
        environment = {"REDIS_URL": server.url}
        async with piped(tmp_path, *options, **environment) as watching:
            with Terminal(WATCH, environment) as terminal:
                await eventually(lambda: len(lines(watching)) == 2)
                await eventually(lambda: f"{LEASE}  nobody" in terminal.shown)
                server.stop()
                await eventually(shows(watching, "lost" if options else "trying again"))
                await eventually(lambda: "trying again for" in " ".join(terminal.shown.split()))
                await eventually(lambda: re.search(rf"{LEASE} .* \?", terminal.shown))
                server.start()
                await eventually(shows(watching, "connected" if options else "answers again"))
                with client_of(server) as redis:
                    redis.set(KEY, "task-1")
                await eventually(shows(watching, "task-1"))
                await eventually(lambda: f"{LEASE}  task-1" in terminal.shown)
                assert "trying again for" not in terminal.shown
                terminal.press("\x03")
                assert terminal.status() == 0
            assert watching.stop(signal.SIGINT) == 0
    assert len(lines(watching)) == 5


async def test_without_the_right_to_track_them_changes_are_shown_a_second_late_and_the_delay_is_reported(
    redis: Redis, redis_server: RedisServer
) -> None:
    login = {"REDIS_USERNAME": "sidecar", "REDIS_PASSWORD": "secret"}
    with user(redis, LEAST):
        give(redis, [right for right in LEAST if right[0] != "&"])
        with Terminal(WATCH, {"REDIS_URL": redis_server.url, **login}) as terminal:
            await eventually(lambda: "a second late: no permission" in " ".join(terminal.shown.split()))
            redis.set(KEY, "task-1")
            await eventually(lambda: f"{LEASE}  task-1" in terminal.shown)
            assert "The watch receives" not in terminal.output, "a log line is inside the table"
            assert "There is no watch" not in terminal.output


def test_a_closed_pipe_ends_watch_without_waiting_for_a_change(redis: Redis, redis_server: RedisServer) -> None:
    out, into = os.pipe()
    environment = {**os.environ, "REDIS_URL": redis_server.url}
    watching = subprocess.Popen([sys.executable, *WATCH], env=environment, stdout=into, stderr=subprocess.PIPE)
    os.close(into)
    seen = b""
    while seen.count(b"\n") < 2:  # one line for each lease; the next line may come hours later
        seen += os.read(out, 100)
    os.close(out)
    _, errors = watching.communicate(timeout=30)
    assert (watching.returncode, errors) == (1, b"")


async def test_a_dumb_terminal_gets_lines(redis: Redis, redis_server: RedisServer) -> None:
    with Terminal(WATCH, {"REDIS_URL": redis_server.url, "TERM": "dumb"}) as terminal:
        await eventually(lambda: f"{LEASE}  nobody leads" in terminal.shown)
        terminal.press("\x03")
        assert terminal.status() == 0
        assert "\x1b" not in terminal.output
