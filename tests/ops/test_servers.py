"""The servers that `make run` and the tests start."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ops.local import postgres_server
from ops.local.server import MOST_HELD, _held, cause
from ops.local.servers import PostgresServer, RedisServer, ServerError, free_port
from tests.ops.living import lives

ROOT = Path(__file__).parents[2]


async def test_redis_starts_during_an_event_loop_and_restarts_on_its_port_after_a_kill(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    try:
        await server.start_beside()
        assert server.ready()
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        assert server.exit_code == -signal.SIGKILL
        port = server.port
        await server.start_beside()
        assert (server.port, server.ready()) == (port, True)
    finally:
        server.stop()


async def test_a_server_runs_during_an_async_block_and_a_failed_start_leaves_nothing(tmp_path: Path) -> None:
    async with PostgresServer(tmp_path / "postgres") as server:
        assert server.ready()
    assert server.exit_code is None and not server.ready()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = PostgresServer(tmp_path / "other", port=listener.getsockname()[1])
        with pytest.raises(ServerError):
            await other.__aenter__()
        data = other.data
    assert data == tmp_path / "other" / "data", "the failed start left the temporary data folder of the user `nobody`"


def test_a_server_that_cannot_start_is_reported_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = RedisServer(tmp_path / "redis", port=listener.getsockname()[1])
        with pytest.raises(ServerError, match=r"^RedisServer did not start on port \d+: .*$"):
            server.start(wait=5)


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux can reserve a port for a server that starts later"
)
def test_a_free_port_stays_reserved_until_its_server_listens_and_after_a_kill(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    for _ in range(2):
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", server.port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        server.start()
        server.kill()


def test_the_number_of_held_ports_is_limited() -> None:
    ports = {free_port() for _ in range(MOST_HELD + 10)}
    assert len(ports) > MOST_HELD
    assert len(_held) <= MOST_HELD


def test_servers_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom ops.local.servers import RedisServer\n"
        "print(RedisServer(Path(sys.argv[1])).start().process.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], cwd=ROOT, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        server = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
    deadline = time.monotonic() + 20
    while lives(server):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_postgres_server_replaces_the_wheel_s_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = min(postgres_server.postgres_binaries().parent.parent.glob("pginstall*/bin/postgres"))
    monkeypatch.setenv("POSTGRES_SERVER", str(older))
    assert PostgresServer(tmp_path).binaries == older.parent.resolve()
    monkeypatch.setenv("POSTGRES_SERVER", str(tmp_path / "none"))
    with pytest.raises(ServerError, match=r"^POSTGRES_SERVER: .* is not a program$"):
        PostgresServer(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root must run Postgres as another user")
def test_root_s_postgres_runs_as_the_user_nobody_from_private_binaries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = postgres_server.postgres_binaries().parent
    mine = tmp_path / "mine"
    mine.mkdir()
    install = postgres_server._copy_install(original, mine)
    for entry in [mine, *mine.rglob("*")]:
        if not entry.is_symlink():
            os.chown(entry, 0, 0)
            entry.chmod(entry.stat().st_mode & 0o700)
    monkeypatch.setattr(postgres_server, "postgres_binaries", lambda: install / "bin")
    server = PostgresServer(tmp_path / "postgres")
    try:
        server.start()
        assert server.process is not None
        assert psutil.Process(server.process.pid).uids().effective == postgres_server.NOBODY
        private = server.data.parent
        assert private.exists()
    finally:
        server.stop()
        shutil.rmtree(mine)
    assert not private.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a separate private folder")
def test_the_next_start_removes_the_files_of_a_killed_owner(tmp_path: Path) -> None:
    killed = PostgresServer(tmp_path / "postgres")
    killed.start()
    left = killed.data.parent
    killed.kill()
    with PostgresServer(tmp_path / "postgres") as server:
        assert server.data.parent != left
        assert not left.exists()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "running bootstrap script ... 2026-11-30 UTC [9] FATAL:  could not write to file: No space left on device\n"
            'child process exited with exit code 1\ninitdb: removing contents of data directory "/data"\n',
            "running bootstrap script ... 2026-11-30 UTC [9] FATAL:  could not write to file: No space left on device",
        ),
        (
            'initdb: error: input file "/postgres.bki" does not belong to PostgreSQL 18\ninitdb: hint: Use -L.\n',
            'initdb: error: input file "/postgres.bki" does not belong to PostgreSQL 18',
        ),
        (
            "PANIC:  could not write to file: No space left on device\nLOG:  aborting startup\n",
            "PANIC:  could not write to file: No space left on device",
        ),
        (
            'child process was terminated by signal 9: Killed\ninitdb: removing data directory "/data"\n\n',
            "child process was terminated by signal 9: Killed",
        ),
        ("Failed listening on port 6379 (tcp), aborting.\n", "Failed listening on port 6379 (tcp), aborting."),
        ("", "no output"),
    ],
)
def test_the_cause_of_a_failed_start_is_the_last_error_and_not_what_follows_it(output: str, expected: str) -> None:
    assert cause(output.encode()) == expected


def test_a_failed_initdb_is_one_line_with_the_cause_and_the_log_of_its_whole_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    install = postgres_server._copy_install(postgres_server.postgres_binaries().parent, mine)
    (bki,) = install.rglob("postgres.bki")
    bki.write_text("# of no version\n")
    monkeypatch.setattr(postgres_server, "postgres_binaries", lambda: install / "bin")
    server = PostgresServer(tmp_path / "postgres")
    try:
        with pytest.raises(ServerError) as caught:
            server.start()
    finally:
        server.stop()
    log = tmp_path / "postgres" / "initdb.log"
    assert "initdb: error: " in str(caught.value)
    assert str(caught.value).endswith(f" (whole output: {log})")
    assert "initdb: hint: " in log.read_text()


def test_an_installation_that_cannot_be_copied_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "install" / "bin").mkdir(parents=True)
    os.mkfifo(tmp_path / "install" / "bin" / "postgres")
    with pytest.raises(ServerError, match=r"^\S+/install/bin/postgres cannot be copied: .*named pipe"):
        postgres_server._copy_install(tmp_path / "install", tmp_path / "copy")


def test_data_of_another_version_is_refused_with_the_folder_and_the_remedies(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "postgres")
    try:
        server.start()
        server.kill()
        (server.data / "PG_VERSION").write_text("9\n")
        with pytest.raises(ServerError) as caught:
            server.start()
        program = server.binaries / "postgres"
        assert str(caught.value).startswith(f"{server.data} was made by Postgres 9, but {program} is ")
        assert str(caught.value).endswith(": remove this folder, or set POSTGRES_SERVER to a postgres 9")
    finally:
        server.stop()
