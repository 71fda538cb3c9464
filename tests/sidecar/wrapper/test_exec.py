"""`python -m sidecar exec` with real programs, real sidecars and a real Redis."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from ops.local.servers import RedisServer, free_port
from runtime.clock import elapsed
from tests.sidecar.wrapper.programs import (
    ALIVE,
    LEAVES_A_CHILD,
    NAME,
    POLITE,
    STUBBORN,
    Wrapper,
    hand_over,
    kill_all,
    run,
    script,
    state,
)
from tests.support.hostile_sidecar import fake_sidecar
from tests.support.outputs import empty_pipe, output
from tests.support.processes import ROOT, SHORT_LEASE, Process, RealSidecar, clean_environment, get_json, killed_at_exit
from tests.support.waiting import eventually, undisturbed

Pair = tuple[RealSidecar, RealSidecar]

LIBC_SIGNALS = 1 << 31 | 1 << 32
"""The bits of the signals 32 and 33, which glibc uses itself. Its posix_spawn makes the child ignore them."""
RESTORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT)
"""Signals that Python ignores or that the wrapper handles. The program gets their default handlers."""

PYTHON = """\
import os, signal, sys, time
def stop(*_):
    time.sleep(0.3)
    print("end", os.environ["LEASE_HOLDER"], os.environ["LEASE_TOKEN"], file=diary, flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, stop)
diary = open(os.environ["DIARY"], "a")
print("begin", os.environ["LEASE_HOLDER"], os.environ["LEASE_TOKEN"], os.environ["LEASE_NAME"], file=diary, flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.mark.parametrize(
    "program", [("sh", "-c", POLITE), (sys.executable, "-c", PYTHON)], ids=["shell script", "Python program"]
)
async def test_one_task_runs_the_program_and_the_next_task_starts_it_after_it_has_ended(
    sidecars: Pair, tmp_path: Path, program: tuple[str, ...]
) -> None:
    await hand_over(sidecars, tmp_path, program)


async def test_a_program_that_forks_and_ignores_sigterm_is_killed_after_the_grace_period(
    sidecars: Pair, tmp_path: Path
) -> None:
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "--grace 0.5", "sh", "-c", STUBBORN)
    with killed_at_exit(wrapper):
        wrapper.start()
        await eventually(lambda: len(wrapper.pids) == 4)
        assert len(run(wrapper.pids)) == 4
        told_at = elapsed()
        wrapper.send(signal.SIGTERM)
        wrapper.send(signal.SIGTERM)  # a second signal does not end the program sooner
        assert await asyncio.to_thread(wrapper.wait) == 0
        assert elapsed() - told_at >= 0.5
        assert run(wrapper.pids) == []
    assert "SIGKILL" in wrapper.output
    assert "--grace" not in wrapper.output
    assert "resigned" in sidecars[0].output


async def test_a_wrapper_whose_standard_error_nobody_reads_runs_the_program_and_ends_cleanly(
    sidecars: Pair, tmp_path: Path
) -> None:
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "", sys.executable, "-c", PYTHON)
    with output("unread") as descriptor, killed_at_exit(wrapper):
        wrapper.outputs["stderr"] = descriptor
        wrapper.start()
        await eventually(lambda: wrapper.began)
        assert await asyncio.to_thread(wrapper.stop, signal.SIGTERM) == 0
    assert [line.split()[0] for line in wrapper.diary] == ["begin", "end"]
    assert "resigned" in sidecars[0].output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_further_signals_do_not_end_a_wrapper_that_waits_for_the_reader_of_its_log(
    sidecars: Pair, tmp_path: Path, number: signal.Signals
) -> None:
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "--once", "sh", "-c", f"exec 2>/dev/null; {POLITE}")
    with empty_pipe() as pipe, killed_at_exit(wrapper):
        wrapper.outputs["stderr"] = pipe.writer
        wrapper.start()
        await asyncio.to_thread(pipe.read, b"runs as process")
        await eventually(lambda: wrapper.began)
        pipe.fill()
        while wrapper.is_running:
            wrapper.send(number)
            await asyncio.sleep(0.005)
        assert wrapper.wait() == 7


@pytest.mark.parametrize("sidecars", ["5"], indirect=True)
async def test_a_grace_period_longer_than_the_grant_is_warned_about_and_sigkill_comes_before_the_deadline(
    sidecars: Pair, tmp_path: Path
) -> None:
    """The sidecar is frozen, so no grant is extended."""

    async def check() -> None:
        wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "--grace 60", "sh", "-c", STUBBORN)
        for file in (wrapper.pids_file, wrapper.log_file):
            file.unlink(missing_ok=True)
        with killed_at_exit(wrapper):
            wrapper.start()
            await eventually(lambda: len(wrapper.pids) == 4)
            assert "--grace 60 is longer than what is left of a grant" in wrapper.output
            sidecars[0].send(signal.SIGSTOP)
            frozen_at = elapsed()
            try:
                await eventually(lambda: run(wrapper.pids) == [])
                assert elapsed() < frozen_at + 5
                await eventually(lambda: "the work has ended" in wrapper.output)
                assert "did not end on SIGTERM: SIGKILL" in wrapper.output  # the wrapper acted before the watchdog
                assert "past its deadline" not in wrapper.output
            finally:
                sidecars[0].send(signal.SIGCONT)

    await undisturbed(check, bears=0.2)


async def test_a_program_gets_sigterm_before_its_grant_ends_while_redis_is_frozen(
    redis_of_its_own: RedisServer, tmp_path: Path
) -> None:
    """The sidecar answers, but all its grants end at the same time."""
    sidecar = RealSidecar(tmp_path, redis_of_its_own, "task-a", **SHORT_LEASE)
    wrapper = Wrapper(tmp_path, "wrapper", sidecar.url, "", "sh", "-c", POLITE)

    async def check() -> None:
        for file in (wrapper.diary_file, wrapper.log_file):
            file.unlink(missing_ok=True)
        with killed_at_exit(wrapper):
            wrapper.start()
            await eventually(lambda: wrapper.began and wrapper.commands)
            redis_of_its_own.pause()
            try:
                await eventually(lambda: "the work has ended" in wrapper.output)
                assert "the term is over: SIGTERM to COMMAND" in wrapper.output
                assert "past its deadline" not in wrapper.output
            finally:
                redis_of_its_own.resume()

    with killed_at_exit(sidecar):
        sidecar.start()
        await undisturbed(check, bears=0.1)


async def test_sigkill_keeps_its_distance_from_the_deadline_after_a_short_first_grant(tmp_path: Path) -> None:
    async def check() -> None:
        async with fake_sidecar() as fake:
            fake.grant = 0.8
            await fake.elect(7)
            wrapper = Wrapper(tmp_path, "wrapper", fake.url, "", "sh", "-c", STUBBORN)
            wrapper.pids_file.unlink(missing_ok=True)
            with killed_at_exit(wrapper):
                wrapper.start()
                await eventually(lambda: len(wrapper.pids) == 4)
                fake.grant = 5.0
                count = len(fake.polls)
                await eventually(lambda: len(fake.polls) > count + 1)  # the second request is held
                fake.misbehave = fake.silence
                deadline = fake.polls[-1][0] + fake.grant
                await eventually(lambda: run(wrapper.pids) == [])
                assert time.monotonic() < deadline - 0.3  # an eighth of the first grant is 0.1 s

    await undisturbed(check, bears=0.1)


async def test_processes_left_behind_have_ended_before_the_lease_moves(sidecars: Pair, tmp_path: Path) -> None:
    one = Wrapper(tmp_path, "one", sidecars[0].url, "--once --grace 1", "sh", "-c", LEAVES_A_CHILD)
    other = Wrapper(tmp_path, "other", sidecars[1].url, "", "sh", "-c", ALIVE.format(pids=one.pids_file) + POLITE)
    with killed_at_exit(one, other):
        one.start()
        await eventually(lambda: one.diary == ["end task-a"])
        other.start()
        await eventually(lambda: other.began)
        assert [line.split()[:2] for line in one.diary] == [["end", "task-a"], ["begin", "task-b"]]


@pytest.mark.slow
async def test_the_process_id_of_an_ended_program_is_not_reused_while_its_group_lives(
    sidecars: Pair, tmp_path: Path
) -> None:
    """Otherwise another process could get this id, and would receive the signals for the group."""
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "--once --grace 3", "sh", "-c", LEAVES_A_CHILD)
    with killed_at_exit(wrapper):
        wrapper.start()
        await eventually(lambda: wrapper.diary)
        (command,) = await eventually(lambda: wrapper.commands)
        (left,) = wrapper.pids
        await eventually(lambda: state(command) == "Z")
        states = []
        while run([left]):
            states.append(state(command))
            await asyncio.sleep(0.01)
        assert len(states) > 10
        assert set(states[:-1]) == {"Z"}


async def test_processes_left_behind_may_end_within_the_grace_period(sidecars: Pair, tmp_path: Path) -> None:
    program = """\
        (trap 'sleep 0.3; echo end >>"$DIARY"; exit' TERM; echo >>"$PIDS"; while :; do sleep 0.05; done) &
        while ! [ -s "$PIDS" ]; do sleep 0.01; done
        exit 3
    """
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "--once", "sh", "-c", program)
    with killed_at_exit(wrapper):
        wrapper.start()
        assert await asyncio.to_thread(wrapper.wait) == 3
        assert wrapper.diary == ["end"]


async def test_a_program_that_ends_at_once_is_restarted_after_growing_pauses(sidecars: Pair, tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "", "sh", "-c", 'echo begin >>"$DIARY"; exit 3')
    with killed_at_exit(wrapper):
        wrapper.start()
        times: list[float] = []
        while len(times) < 3:
            await eventually(lambda: len(wrapper.began) > len(times))
            times.append(elapsed())
        assert times[1] - times[0] >= 0.9
        assert times[2] - times[1] >= 1.9
        assert wrapper.output.count("COMMAND ended with status 3") >= 2
        pauses = [
            line.partition("campaigns again in ")[2] for line in wrapper.output.splitlines() if "again in" in line
        ]
        assert pauses[:2] == ["1 s", "2 s"]
        assert wrapper.stop(signal.SIGTERM) == 0


async def test_with_once_the_wrapper_exits_with_the_status_of_the_program(sidecars: Pair, tmp_path: Path) -> None:
    for command, status in (("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)):
        wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "--once", "sh", "-c", command)
        with killed_at_exit(wrapper):
            wrapper.start()
            assert await asyncio.to_thread(wrapper.wait) == status
    assert "campaigns again" not in wrapper.output


async def test_with_once_a_term_that_ends_first_is_reported_and_the_exit_status_is_that_of_the_program(
    sidecars: Pair, tmp_path: Path, redis_server: RedisServer
) -> None:
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "--once", "sh", "-c", POLITE)
    with killed_at_exit(wrapper), redis.Redis.from_url(redis_server.url) as operator:
        wrapper.start()
        await eventually(lambda: wrapper.began)
        operator.set(f"{tmp_path.name}:{NAME}", "DISABLED", ex=60)
        assert await asyncio.to_thread(wrapper.wait) == 7
        assert "COMMAND ended with status 7 because the term is over" in wrapper.output


@pytest.mark.parametrize(("options", "status"), [("", 0), ("--once", 143)])
async def test_with_once_a_wrapper_that_never_led_reports_it(
    sidecars: Pair, tmp_path: Path, options: str, status: int, redis_server: RedisServer
) -> None:
    with redis.Redis.from_url(redis_server.url) as operator:
        operator.set(f"{tmp_path.name}:{NAME}", "DISABLED", ex=60)
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, options, "sh", "-c", POLITE)
    with killed_at_exit(wrapper):
        wrapper.start()
        await eventually(lambda: _disabled(sidecars[0]))
        assert wrapper.stop(signal.SIGTERM) == status
        assert wrapper.diary == []


async def _disabled(sidecar: RealSidecar) -> bool:
    status = await get_json(f"{sidecar.url}/status")
    return bool(status and status["leases"][NAME]["state"] == "disabled")


async def test_a_missing_command_exits_with_127_and_acquires_no_lease(
    sidecars: Pair, tmp_path: Path, redis_server: RedisServer
) -> None:
    plain = tmp_path / "plain"
    plain.write_text("exit 0\n")
    for command, status in (("no-such-program", 127), ("/no/such/program", 127), (str(plain), 126)):
        wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "", command)
        with killed_at_exit(wrapper):
            wrapper.start()
            assert await asyncio.to_thread(wrapper.wait) == status
        assert f"cannot execute '{command}'" in wrapper.output.splitlines()[-1]
    with redis.Redis.from_url(redis_server.url) as operator:
        assert operator.exists(f"fence:{{{tmp_path.name}:{NAME}}}") == 0, "nobody has led"


async def test_a_command_that_the_system_refuses_ends_the_wrapper_without_a_retry(
    sidecars: Pair, tmp_path: Path
) -> None:
    for first, status in (("#!/no/such/interpreter\n", 127), ("\x7fELF", 126)):
        wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "", script(tmp_path, "exit 0\n", first=first))
        with killed_at_exit(wrapper):
            wrapper.start()
            assert await asyncio.to_thread(wrapper.wait) == status
    await eventually(lambda: sidecars[0].output.count('"reason": "resigned"') == 2)  # logged after the release


async def test_arguments_too_long_for_the_program_end_the_wrapper_without_a_retry(
    sidecars: Pair, tmp_path: Path
) -> None:
    """COMMAND gets three more variables, and with them the process cannot be created."""
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "", "true", *["x" * 100_000] * 20)
    words, environment = [sys.executable, *wrapper._arguments], clean_environment(**wrapper.environment)

    def fits(length: int) -> bool:
        try:
            subprocess.run(["true", *words, "x" * length], env=environment, check=True)
        except OSError:
            return False
        return True

    fitting, too_long = 0, 100_000
    while too_long - fitting > 1:
        middle = (fitting + too_long) // 2
        fitting, too_long = (middle, too_long) if fits(middle) else (fitting, middle)
    # `fits` measured with the program `true` instead of Python, so the limit is off by a few bytes.
    wrapper._arguments = [*wrapper._arguments, "x" * (fitting - 20)]
    with killed_at_exit(wrapper):
        wrapper.start()
        assert await asyncio.to_thread(wrapper.wait) == 126
    assert "cannot execute 'true': Argument list too long" in wrapper.output
    assert "Traceback" not in wrapper.output


def ignored_here() -> int:
    """The signals that this process ignores, such as SIGHUP under nohup; a child inherits them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("SigIgn:")), 16)


async def test_a_process_in_another_group_of_the_session_ends_with_the_program(sidecars: Pair, tmp_path: Path) -> None:
    """The program moves a child process into another group, as `timeout` and a shell with job control do."""
    program = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0: os.setpgid(0, 0)\n"
        "print(os.getpid(), file=open(os.environ['PIDS'], 'a'), flush=True)\n"
        "time.sleep(1000)\n"
    )
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "--grace 0.2", sys.executable, "-c", program)
    with killed_at_exit(wrapper):
        wrapper.start()
        await eventually(lambda: len(wrapper.pids) == 2)
        try:
            assert len({os.getpgid(pid) for pid in wrapper.pids}) == 2
            assert wrapper.stop(signal.SIGTERM) == 0
            assert run(wrapper.pids) == []
        finally:
            kill_all(wrapper.pids)


async def test_a_program_stopped_by_sigstop_is_ended(sidecars: Pair, tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "--once", "sh", "-c", POLITE)
    with killed_at_exit(wrapper):
        wrapper.start()
        await eventually(lambda: wrapper.began and wrapper.commands)
        os.killpg(wrapper.commands[0], signal.SIGSTOP)
        # The state is T, or D if the shell waits for a child that was stopped between fork and exec.
        await eventually(lambda: state(wrapper.commands[0]) in ("T", "D"))
        assert wrapper.stop(signal.SIGTERM) == 7, "the program handled SIGTERM"


async def test_the_program_inherits_the_environment_and_the_signals_of_the_wrapper(
    sidecars: Pair, tmp_path: Path
) -> None:
    program = (
        "cat /proc/self/environ; echo; grep -E 'Sig(Blk|Ign)' /proc/self/status; "
        "readlink /proc/self/fd/0; ls /proc/self/fd"
    )
    given = {"PYTHONWARNINGS": "error", "PROMETHEUS_MULTIPROC_DIR": "/x", "HTTPS_PROXY": "http://proxy", "EMPTY": ""}
    wrapper = Wrapper(
        tmp_path, "wrapper", sidecars[0].url, "--once --grace 1", "sh", "-c", f'{{ {program}; }} >"$DIARY"', **given
    )
    with killed_at_exit(wrapper):
        wrapper.start()
        assert await asyncio.to_thread(wrapper.wait) == 0
    environment, blocked, ignored, stdin, *files = wrapper.diary
    variables = dict(entry.split("=", 1) for entry in environment.split("\0") if entry)
    expected = clean_environment(**wrapper.environment) | {"LEASE_NAME": NAME, "LEASE_HOLDER": "task-a"}
    assert {name: variables.get(name) for name in expected} == expected
    assert variables.keys() - expected.keys() - {"PWD", "OLDPWD", "_", "SHLVL"} == {"LEASE_TOKEN"}
    assert int(blocked.split()[1], 16) == 0
    restored = sum(1 << number - 1 for number in RESTORED)
    assert int(ignored.split()[1], 16) & ~LIBC_SIGNALS == ignored_here() & ~LIBC_SIGNALS & ~restored
    assert stdin == "/dev/null"
    assert files == ["0", "1", "2", "3"], "only the standard streams, and the folder that ls has open"


@pytest.mark.parametrize(
    ("words", "variables", "named"),
    [
        (("background_services", "true"), {}, "'--'"),
        (
            ("background_services", "--", "true"),
            {"SIDECAR_URL": "localhost:4040"},
            "SIDECAR_URL: the sidecar's address 'localhost:4040' is not",
        ),
        (("background_services", "--", "true"), {"LOG_FORMAT": "xml"}, "LOG_FORMAT: 'xml'"),
        (("no_such_lease", "--", "true"), {}, "no lease 'no_such_lease': its LEASES are background_services"),
    ],
)
async def test_a_user_error_is_one_line_and_status_2(
    sidecars: Pair, words: tuple[str, ...], variables: dict[str, str], named: str
) -> None:
    environment = {"PATH": os.environ["PATH"], "SIDECAR_URL": sidecars[0].url} | variables
    command = [sys.executable, "-m", "sidecar", "exec", *words]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert named in done.stderr
    assert done.stderr.startswith("sidecar: ")
    assert done.stderr.count("\n") == 1


STOPPED_EARLY = """\
import os, signal, sys
from sidecar.__main__ import main

class Finder:
    def find_spec(self, name, *_):
        if name == "sidecar.wrapper.run":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Finder())
sys.exit(main(sys.argv[1:]))
"""
"""The sidecar's program, which gets SIGTERM before the import of the wrapper."""


async def test_a_signal_during_the_imports_stops_the_wrapper_as_a_later_one_does(tmp_path: Path) -> None:
    words = ["-c", STOPPED_EARLY, "exec", NAME, "--once", "--", "true"]
    wrapper = Process(tmp_path / "log", words, SIDECAR_URL=f"http://127.0.0.1:{free_port()}", LOG_FORMAT="text")
    with killed_at_exit(wrapper):
        wrapper.start()
        assert await wrapper.end() == 143
        assert "SIGTERM: the wrapper stops" in wrapper.output


ANSWERS = {
    "a list": b"HTTP/1.1 404 x\r\nContent-Length: 2\r\n\r\n[]",
    "a text": b'HTTP/1.1 404 x\r\nContent-Length: 11\r\n\r\n"Not Found"',
    "a broken chunk": b"HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an error of Redis": b"-ERR wrong number of arguments for 'get' command\r\n",
}
"""Answers of other programs on the sidecar's port."""


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_a_wrapper_waits_for_its_sidecar_while_another_program_answers(tmp_path: Path, answer: bytes) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(answer)
        writer.close()

    asked: list[bytes] = []
    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        wrapper = Wrapper(tmp_path, "wrapper", url, "", "true")
        with killed_at_exit(wrapper):
            wrapper.start()
            await eventually(lambda: any(b"/is-leader/" in line for line in asked))
            assert await asyncio.to_thread(wrapper.stop, signal.SIGTERM) == 0
    assert "Traceback" not in wrapper.output


async def test_arguments_of_the_program_are_not_logged(sidecars: Pair, tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, "wrapper", sidecars[0].url, "--once", "sh", "-c", "exit 0", "--password=secret")
    with killed_at_exit(wrapper):
        wrapper.start()
        assert await asyncio.to_thread(wrapper.wait) == 0
    assert "runs as process" in wrapper.output
    assert "secret" not in wrapper.output
