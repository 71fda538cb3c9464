"""A refused connection is retried. The log and the internal /healthz report it with the setting that causes it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from ops.local.servers import PostgresServer, free_port
from service.database.connection import StoreError, connect
from service.database.server_refusals import MORE_CONNECTIONS, lasting_refusal
from service.database.store import Store
from tests.service.test_outgoing import TlsFront
from tests.support.processes import Service
from tests.support.tls import Authority
from tests.support.waiting import eventually

ROLES = """
create role with_password login password 'right';
create role locked_out nologin;
create role without_rights login;
create role over_tls login;
"""
LOGINS = """
host all with_password 127.0.0.1/32 scram-sha-256
host all over_tls 127.0.0.1/32 reject
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A Postgres that refuses some logins."""
    with PostgresServer(tmp_path_factory.mktemp("postgres"), settings=("fsync=off",)) as server:

        async def make() -> None:
            admin = await asyncpg.connect(server.url)
            await admin.execute(ROLES)
            await admin.execute("create database closed")
            await admin.execute("revoke connect on database closed from public")
            _put_in_front(Path(await admin.fetchval("show hba_file")))
            await admin.execute("select pg_reload_conf()")
            await admin.close()
            await eventually(lambda: _is_refused(server))

        asyncio.run(make())
        yield server


def _put_in_front(rules: Path) -> None:
    rules.write_text(LOGINS + rules.read_text())


async def _is_refused(server: PostgresServer) -> bool:
    """Whether the new rules are in effect."""
    try:
        await (await asyncpg.connect(_url(server, "over_tls", "postgres"))).close()
    except asyncpg.InvalidAuthorizationSpecificationError:
        return True
    return False


def _url(server: PostgresServer, login: str, more: str) -> str:
    return f"postgresql://{login}@127.0.0.1:{server.port}/{more}"


@pytest.mark.parametrize(
    ("login", "more", "message"),
    [
        ("with_password:wrong", "postgres", 'password authentication failed for user "with_password"'),
        ("with_password", "postgres", 'password authentication failed for user "with_password"'),
        ("nobody", "postgres", 'role "nobody" does not exist'),
        ("locked_out", "postgres", 'role "locked_out" is not permitted to log in'),
        ("postgres", "nowhere", 'database "nowhere" does not exist'),
        ("without_rights", "closed", 'permission denied for database "closed"'),
        ("postgres", "postgres?options=-c%20nonsense%3D1", 'unrecognized configuration parameter "nonsense"'),
        ("postgres", "postgres?work_mem=lots", 'invalid value for parameter "work_mem": "lots"'),
    ],
)
async def test_a_refusal_that_a_setting_causes_names_the_setting(
    login: str, more: str, message: str, server: PostgresServer
) -> None:
    for reached in (connect, Store.connect):
        with pytest.raises(StoreError) as refused:
            await reached(_url(server, login, more))
        assert str(refused.value) == f"database: DATABASE_URL: {message}"


async def test_a_login_that_is_refused_without_tls_is_reported_with_the_option(server: PostgresServer) -> None:
    with pytest.raises(StoreError, match=r"^database: DATABASE_URL: .*, no encryption; sslmode=require asks for TLS$"):
        await connect(_url(server, "over_tls", "postgres"))


async def test_a_server_without_tls_is_reported_with_the_option(server: PostgresServer) -> None:
    with pytest.raises(StoreError, match=r"^database: DATABASE_URL: .*rejected SSL upgrade; .*sslmode=disable$"):
        await connect(_url(server, "postgres", "postgres?sslmode=require"))


@pytest.fixture
async def front(server: PostgresServer, tmp_path: Path) -> AsyncIterator[tuple[int, Path, Path]]:
    """The port of a TLS front (certificate for `localhost`), its CA's certificate, and another CA's certificate."""
    authority = Authority("ours")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*authority.issue("localhost", tmp_path / "server"))
    async with TlsFront(server.port, tls).listening() as address:
        yield address[4][1], authority.write(tmp_path / "ca.crt"), Authority("other").write(tmp_path / "other.crt")


async def test_a_certificate_that_does_not_match_is_reported_with_the_options(
    front: tuple[int, Path, Path],
) -> None:
    port, ours, other = front
    well = f"postgresql://postgres@localhost:{port}/postgres?sslmode=verify-full&sslrootcert={ours}"
    await (await connect(well)).close()
    message = r"^database: DATABASE_URL: certificate verify failed: %s.*; see sslmode and sslrootcert$"
    with pytest.raises(StoreError, match=message % "unable to get local issuer certificate"):
        await connect(well.replace(str(ours), str(other)))
    with pytest.raises(StoreError, match=message % "IP address mismatch"):
        await connect(well.replace("localhost", "127.0.0.1"))


SETTING = "DATABASE_URL: "
ROOM = f"; {MORE_CONNECTIONS}"


@pytest.mark.parametrize(
    ("words", "state", "before", "after"),
    [
        ("unsupported startup parameter: search_path", "08P01", SETTING, ""),
        ("no such database: portfolio", "08P01", SETTING, ""),
        ("Tenant or user not found", "XX000", SETTING, ""),
        ("(ENOTFOUND) tenant/user postgres.abc not found", "XX000", SETTING, ""),
        ("no more connections allowed (max_client_conn)", "08P01", "", ROOM),
        ("max clients reached in session mode", "XX000", "", ROOM),
        ("server login has been failing, try again later", "08P01", "", ""),
        ("the database system is starting up", "57P03", "", ""),
        ("sorry, too many clients already", "53300", "", ROOM),
    ],
)
async def test_a_pooler_s_refusal_names_the_setting_only_if_no_retry_can_succeed(
    words: str, state: str, before: str, after: str
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"N")
        await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)
        fields = b"SFATAL\0VFATAL\0C%s\0M%s\0\0" % (state.encode(), words.encode())
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as pooler:
        port = pooler.sockets[0].getsockname()[1]
        with pytest.raises(StoreError) as refused:
            await connect(f"postgresql://app@127.0.0.1:{port}/portfolio")
    assert str(refused.value) == f"database: {before}{words}{after}"


def test_an_error_without_a_message_is_not_a_lasting_refusal() -> None:
    assert lasting_refusal(ConnectionResetError()) is None
    assert lasting_refusal(TimeoutError()) is None


async def test_an_unknown_host_name_is_reported_with_the_setting() -> None:
    with pytest.raises(StoreError, match=r"^database: cannot look up the host of DATABASE_URL: .+$"):
        await connect("postgresql://app@db.invalid/portfolio?sslmode=require")


@pytest.mark.slow
async def test_a_wrong_password_is_logged_and_in_the_internal_healthz_and_retried(
    server: PostgresServer,
    new_service: Callable[..., Service],
    stack: AsyncExitStack,
) -> None:
    """The password is corrected in the server, and the task needs no restart."""
    admin = await asyncpg.connect(server.url)
    stack.push_async_callback(admin.close)
    await admin.execute("alter role with_password password 'right'")
    url = _url(server, "with_password:other", "postgres")
    service = new_service("a", f"http://127.0.0.1:{free_port()}", DATABASE_URL=url)
    await stack.enter_async_context(service)
    trouble = 'DATABASE_URL: password authentication failed for user "with_password"'

    async def database() -> str:
        return str((await service.get_internal("/healthz"))["database"])

    await eventually(lambda: _equals(database, trouble))
    assert (await service.get("/healthz")) == {"status": "ok"}
    await admin.execute("alter role with_password password 'other'")
    await eventually(lambda: _differs(database, trouble))
    errors = [
        line["message"] for line in service.lines() if line["level"] == "ERROR" and "DATABASE_URL" in line["message"]
    ]
    assert errors == [f"database: {trouble}"]
    assert "other" not in service.output


async def _equals(ask: Callable[[], Awaitable[str]], message: str) -> bool:
    return await ask() == message


async def _differs(ask: Callable[[], Awaitable[str]], message: str) -> bool:
    return await ask() != message
