"""In every output of the sidecar, text from outside is printable and of bounded length, and cannot forge a line."""

import asyncio
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis

from ops.local.servers import RedisServer, free_port
from sidecar.redis.failures import failure_of
from tests.sidecar.commands.test_operator import Run
from tests.sidecar.commands.test_operator import run as run
from tests.sidecar.test_process import SMALL
from tests.support.processes import ROOT, RealSidecar, get_json, killed_at_exit
from tests.support.script_caller import FENCE, KEY
from tests.support.waiting import eventually

LEASE = "background_services"
FORGED = "2026-01-01T00:00:00.000Z ERROR   forged"
HOSTILE: dict[str, str | bytes] = {
    "lines": f"a\n{FORGED}\r\n{FORGED}",
    "escapes": "a\x1b[2J\x1b]0;title\x07\x9b31m\x7f",
    "separators": f"a\u2028{FORGED}\u2029{FORGED}\x85{FORGED}\x0b\x0c\x1c",
    "bidi": "a\u202e\u2066\u200f",
    "bytes": b"\xff\xfe\x1b",
    "megabytes": "x\n" * 1_000_000,
}
TIME = re.compile(r"20\d\d-\d\d-\d\dT")

hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


def check_lines(output: str, lines: int | None = None) -> None:
    """Check that each line is printable and not too long. Also check the number of lines, if it is given."""
    found = output.removesuffix("\n").split("\n")
    assert all(line.isprintable() and len(line) < 2_000 for line in found), output[:500]
    assert lines is None or len(found) == lines, output[:500]


@hostile
def test_every_command_escapes_holders_and_tokens(redis: Redis, run: Run, text: str | bytes) -> None:
    redis.set(KEY, text)
    redis.hset(FENCE, mapping={"token": text, "holder": text})
    status, output, _ = run("leaders")
    assert status == 0
    check_lines(output)
    assert all(len(line) <= 80 for line in output.splitlines())
    status, output, _ = run("fence", LEASE, "--dry-run")
    assert status == 0
    check_lines(output, lines=3)
    status, _, errors = run("fence", LEASE)
    assert status == 1
    check_lines(errors, lines=1)
    status, _, errors = run("enable", LEASE)
    assert status == 1
    check_lines(errors, lines=1)
    status, output, _ = run("disable", LEASE, "60")
    assert status == 0
    check_lines(output, lines=1)


def test_commands_work_on_an_ascii_terminal(redis: Redis, redis_server: RedisServer) -> None:
    redis.set(KEY, "größer")
    environment = os.environ | {"REDIS_URL": redis_server.url, "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-m", "sidecar", "leaders"]
    ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert rb"gr\xf6\xdfer" in ended.stdout


@hostile
def test_a_hostile_argument_is_refused_in_one_line(run: Run, text: str | bytes) -> None:
    word = text.decode(errors="surrogateescape") if isinstance(text, bytes) else text
    for words in ([word], ["enable", word], ["disable", LEASE, word], ["fence", LEASE, word]):
        status, output, errors = run(*words)
        assert (status, output) == (2, "")
        check_lines(errors, lines=1)


@pytest.mark.parametrize(
    "answer", ["HTTP/1.1 200 \x1b[2J\r\n\r\n{", "\x1b[2J\r\n\r\n", "HTTP/1.1 500 \x1b\r\n\r\n", "", "{"]
)
async def test_status_reports_a_listener_that_is_not_a_sidecar_in_one_line(run: Run, answer: str) -> None:
    await _status_of(run, answer.encode("latin-1"), status=1)


async def test_status_is_json_of_bounded_length_without_control_characters(run: Run) -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    output = await _status_of(
        run, head + json.dumps({"holder": "a\x1b\x7f\u202e\n"}, ensure_ascii=False).encode(), status=0
    )
    assert json.loads(output) == {"holder": "a\x1b\x7f\u202e\n"}
    await _status_of(run, head + b'"' + b"x" * 3_000_000 + b'"', status=1)
    await _status_of(run, head + b"[" * 200_000, status=1)


async def _status_of(run: Run, answer: bytes, *, status: int) -> str:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        found, output, errors = await asyncio.to_thread(run, "status", CONTROL_BIND=f"127.0.0.1:{port}")
    assert found == status
    check_lines(output + errors, lines=1 if status else None)
    return output


@hostile
def test_an_error_of_the_redis_server_is_one_line(text: str | bytes) -> None:
    word = text.decode(errors="replace") if isinstance(text, bytes) else text
    for error in (ValueError(word), OSError(word), ConnectionError(word)):
        failure = failure_of(error, may_execute=False, keys=[word], channels=[word])
        check_lines(failure.text, lines=1)


def test_an_internal_error_that_ends_the_sidecar_is_logged_and_escaped() -> None:
    code = f"""
import sidecar.run, sidecar.telemetry, sidecar.__main__
def run(environment, ignored):
    sidecar.telemetry.log_to_stdout("text", "INFO")
    raise RuntimeError({HOSTILE["separators"]!r})
sidecar.run.run = run
raise SystemExit(sidecar.__main__.main([]))
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "")
    check_lines(ended.stdout)
    first, *others = ended.stdout.removesuffix("\n").split("\n")
    assert TIME.match(first)
    assert all(line.startswith("  ") for line in others)


@pytest.mark.parametrize("form", ["text", "json"])
async def test_the_log_and_the_status_of_a_sidecar_escape_text_from_redis(
    redis: Redis, redis_server: RedisServer, tmp_path: Path, form: str
) -> None:
    sidecar = RealSidecar(tmp_path, redis_server, "task-1", **SMALL | {"LOG_FORMAT": form, "REQUIRE_CLIENT": "false"})
    key = f"{tmp_path.name}:{LEASE}"
    with killed_at_exit(sidecar):
        sidecar.start()
        for text in HOSTILE.values():
            redis.set(key, text)
            start = (text.decode(errors="replace") if isinstance(text, bytes) else text)[:3]

            async def reported(start: str = start) -> bool:
                status = await get_json(f"{sidecar.url}/status")
                lease = status["leases"][LEASE] if status else {}
                return bool(lease) and f"the key has no TTL: {start}" in (lease["trouble"] or "")

            await eventually(reported)
            status = await get_json(f"{sidecar.url}/status")
            assert len(json.dumps(status)) < 5_000
        redis.delete(key)
    output = sidecar.output
    check_lines(output)
    lines = [line for line in output.split("\n") if "the key has no TTL" in line]
    assert len(lines) == len(HOSTILE)
    assert all(TIME.match(line) or line.startswith("{") for line in output.removesuffix("\n").split("\n"))
