"""The rotation of a password in a file, on real servers. The file is read at each connect; its faults are reported."""

import os
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM

import aiohttp
import pytest

from ops.local.servers import RedisServer
from sidecar.protocol import Kind, Outcome
from sidecar.redis.connection import Connector
from sidecar.redis.credentials import LARGEST
from sidecar.redis.failures import Failure
from sidecar.settings import SettingsError, read
from tests.sidecar.conftest import client_of, command
from tests.sidecar.test_process import STEADY, Asker, logged
from tests.support.processes import RealSidecar, killed_at_exit
from tests.support.redis_rights import LEAST
from tests.support.storing import Storing, storing
from tests.support.waiting import eventually

OLD, NEW = "first-correct-horse", "second-battery-staple"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{OLD}\n")
    return file


@pytest.fixture
def server(redis_of_its_own: RedisServer) -> Iterator[RedisServer]:
    """A server with the user `sidecar`, its first password, and the rights that docs/redis.md lists."""
    with client_of(redis_of_its_own) as redis:
        command(redis, "ACL", "SETUSER", "sidecar", "on", f">{OLD}", *LEAST)
        yield redis_of_its_own


def set_passwords(server: RedisServer, *changes: str, cut: bool = False) -> None:
    """Change the user's passwords; `cut` closes the connections of the user, like a restart of the server."""
    with client_of(server) as redis:
        command(redis, "ACL", "SETUSER", "sidecar", *changes)
        if cut:
            command(redis, "CLIENT", "KILL", "USER", "sidecar")


def settings(server: RedisServer, file: Path) -> dict[str, str]:
    return {"REDIS_PORT": str(server.port), "REDIS_USERNAME": "sidecar", "REDIS_PASSWORD_FILE": str(file)}


def put(file: Path, content: str | bytes) -> None:
    """Write a file in place, like an operator."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)


async def look(store: Storing) -> Outcome | Failure:
    """The outcome of a look over a new connection, or its failure."""
    await store.store.close()
    result = await store.call(Kind.LOOK, limit=10.0)
    return result if isinstance(result, Failure) else result.outcome


async def test_the_password_file_is_read_at_each_connect(server: RedisServer, file: Path) -> None:
    async with storing(Connector(read(settings(server, file)).redis)) as store:
        assert await look(store) is Outcome.VACANT
        set_passwords(server, f"<{OLD}", f">{NEW}")
        refused = await look(store)
        assert isinstance(refused, Failure)
        assert refused.kind == "auth"
        assert refused.text.endswith("; REDIS_PASSWORD_FILE has just been read")
        put(file, NEW)
        assert await look(store) is Outcome.VACANT


async def test_the_default_user_needs_no_username(redis_of_its_own: RedisServer, file: Path) -> None:
    with client_of(redis_of_its_own) as redis:
        redis.config_set("requirepass", OLD)
    environment = {"REDIS_PORT": str(redis_of_its_own.port), "REDIS_PASSWORD_FILE": str(file)}
    async with storing(Connector(read(environment).redis)) as store:
        assert await look(store) is Outcome.VACANT


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "the file is empty"),
        (b"\n", "the file is empty"),
        (b"one\ntwo\n", "the file has several lines; a password is one line"),
        (b"\xff\xfe", "the file is not UTF-8 text"),
        (b"x" * (LARGEST + 1), f"the file is longer than {LARGEST} bytes"),
    ],
)
async def test_a_file_without_a_valid_password_is_a_login_failure(
    server: RedisServer, file: Path, content: bytes, error: str
) -> None:
    async with storing(Connector(read(settings(server, file)).redis)) as store:
        put(file, content)
        failure = await look(store)
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.text) == ("credentials", f"REDIS_PASSWORD_FILE: {error}")
        put(file, f"{OLD}\r\n")
        assert await look(store) is Outcome.VACANT
    put(file, content)
    with pytest.raises(SettingsError) as refused:
        Connector(read(settings(server, file)).redis)
    assert str(refused.value) == f"REDIS_PASSWORD_FILE: {error}"


def test_a_path_that_is_not_a_readable_file_is_refused_at_start_without_showing_the_path(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, error in (
        (tmp_path / OLD, "the file cannot be read: No such file or directory"),
        (tmp_path, "the file is not a regular file"),
        (pipe, "the file is not a regular file"),
        (Path(OLD), "not an absolute path; set the path of a file"),
    ):
        with pytest.raises(SettingsError) as refused:
            Connector(read({"REDIS_PASSWORD_FILE": str(path)}).redis)
        assert str(refused.value) == f"REDIS_PASSWORD_FILE: {error}"


@pytest.mark.parametrize(
    ("environment", "error"),
    [
        (
            {"REDIS_PASSWORD": OLD, "REDIS_PASSWORD_FILE": "/p"},
            "REDIS_PASSWORD_FILE: cannot be set together with REDIS_PASSWORD",
        ),
        (
            {"REDIS_URL": f"redis://:{OLD}@h", "REDIS_PASSWORD_FILE": "/p"},
            "REDIS_PASSWORD_FILE: cannot be set together with a password in REDIS_URL",
        ),
        (
            {"REDIS_URL": f"redis://u:{OLD}@h", "REDIS_USERNAME": "u"},
            "REDIS_USERNAME: cannot be set together with a user in REDIS_URL",
        ),
        (
            {"REDIS_URL": f"redis://u:{OLD}@h", "REDIS_PASSWORD": NEW},
            "REDIS_PASSWORD: cannot be set together with a password in REDIS_URL",
        ),
        (
            {"REDIS_USERNAME": "u"},
            "REDIS_PASSWORD: missing, though REDIS_USERNAME is set;"
            " REDIS_PASSWORD_FILE or REDIS_IAM can take its place",
        ),
    ],
)
def test_two_login_methods_are_refused_with_both_setting_names(environment: dict[str, str], error: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(environment)
    assert str(refused.value) == error


def task(folder: Path, server: RedisServer, name: str, **login: str) -> RealSidecar:
    """A sidecar with this login.

    It renews rarely, because a renewal fails if the connection ends before the reply.
    """
    sidecar = RealSidecar(
        folder, server, name, **STEADY | {"LEASE_TTL": "120", "HEARTBEAT_INTERVAL": "40", "GRANT_TTL": "30"}
    )
    sidecar.environment |= {"REDIS_USERNAME": "sidecar", "LEASE_KEY": "portfolio:{name}:leader", **login}
    return sidecar


def connections(server: RedisServer) -> int:
    """The number of the user's connections."""
    with client_of(server) as redis:
        return sum(each["user"] == "sidecar" for each in redis.client_list())


async def leads(asker: Asker) -> bool:
    return bool((await asker.ask())["is_leader"])


async def test_rotating_the_password_in_the_file_ends_no_term_and_causes_no_error(
    server: RedisServer, file: Path, tmp_path: Path
) -> None:
    """Steps: add the new password, change the file, remove the old password.

    New connections then use the new password.
    """
    async with aiohttp.ClientSession() as session:
        pair = [task(tmp_path, server, name, REDIS_PASSWORD_FILE=str(file)) for name in ("task-a", "task-b")]
        leader, follower = (Asker(each, session) for each in pair)
        with killed_at_exit(*pair):
            for each in pair:
                each.start()
            await eventually(leader.status)
            await eventually(lambda: leads(leader))
            # Each sidecar has one connection for its leases and one for its watch.
            await eventually(lambda: connections(server) == 4)
            token = (await leader.ask())["token"]
            set_passwords(server, f">{NEW}")
            put(file, NEW)
            set_passwords(server, f"<{OLD}", cut=True)
            await eventually(lambda: connections(server) == 4)
            answer = await leader.ask()
            assert (answer["is_leader"], answer["token"]) == (True, token)
            await leader.resign()
            await eventually(lambda: leads(follower))
        for each in pair:
            assert [line for line in logged(each, "Redis failed") if line["level"] == "ERROR"] == []
            assert OLD not in each.output
            assert NEW not in each.output


async def test_a_password_in_the_environment_is_rotated_by_a_deploy_while_both_passwords_are_valid(
    server: RedisServer, tmp_path: Path
) -> None:
    """As on ECS: the new task has the new password, the old task drains, and then the old password is removed."""
    async with aiohttp.ClientSession() as session:
        old = task(tmp_path, server, "task-old", REDIS_PASSWORD=OLD)
        new = task(tmp_path, server, "task-new", REDIS_PASSWORD=NEW)
        with killed_at_exit(old, new):
            old.start()
            leader, follower = Asker(old, session), Asker(new, session)
            await eventually(leader.status)
            await eventually(lambda: leads(leader))
            set_passwords(server, f">{NEW}")
            new.start()
            await eventually(follower.status)
            assert not await leads(follower)
            await leader.resign()
            await eventually(lambda: leads(follower))
            assert old.stop(SIGTERM) == 0
            set_passwords(server, f"<{OLD}", cut=True)
            await eventually(lambda: connections(server) == 2)
            assert await leads(follower)
        assert follower.believes[0][2] > leader.believes[0][2]
        assert [line for line in logged(new, "Redis failed") if line["level"] == "ERROR"] == []
