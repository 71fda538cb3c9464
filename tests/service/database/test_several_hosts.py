"""A DATABASE_URL with several hosts: a host that accepts writes is preferred; without one, a standby serves reads."""

from collections.abc import Iterator
from datetime import datetime

import pytest

from ops.local.postgres_server import PostgresServer
from service.database.connection import StoreError, connect
from service.database.store import Store
from tests.support.proxy import Proxy


@pytest.fixture(scope="module")
def standby(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server in recovery that follows no primary."""
    server = PostgresServer(tmp_path_factory.mktemp("standby"), settings=("fsync=off",))
    server.prepare()
    (server.data / "standby.signal").touch()
    with server:
        yield server


def address(*ports: int | None, options: str = "") -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"postgresql://postgres@{hosts}/postgres{options}"


async def test_the_host_that_accepts_writes_is_used_although_a_standby_comes_first(
    standby: PostgresServer, postgres: PostgresServer
) -> None:
    connection = await connect(address(standby.port, postgres.port))
    await connection.execute("create temporary table written (id int)")
    await connection.close()


async def test_a_standby_serves_reads_until_another_host_accepts_writes(
    standby: PostgresServer, postgres: PostgresServer
) -> None:
    async with Proxy(postgres.port) as proxy:
        await proxy.refuse()
        async with await Store.connect(address(standby.port, proxy.port)) as store:
            assert isinstance(await store.clock(), datetime)
            assert "standby" in str((await store.condition()).trouble)
            await proxy.accept()
            assert (await store.condition()).trouble is None


async def test_a_standby_serves_reads_while_the_first_host_is_down(standby: PostgresServer) -> None:
    async with Proxy(standby.port) as down:
        await down.refuse()
        connection = await connect(address(down.port, standby.port))
    assert await connection.fetchval("select pg_is_in_recovery()")
    await connection.close()


async def test_an_address_with_its_own_choice_of_hosts_keeps_it(
    standby: PostgresServer, postgres: PostgresServer
) -> None:
    connection = await connect(address(standby.port, postgres.port, options="?target_session_attrs=any"))
    assert await connection.fetchval("select pg_is_in_recovery()")
    await connection.close()


@pytest.mark.parametrize("choice", ["read-write", "primary"])
async def test_a_choice_that_no_host_fulfils_is_one_plain_sentence(standby: PostgresServer, choice: str) -> None:
    with pytest.raises(StoreError, match=r"^database: no host of DATABASE_URL accepts writes \(target_session_attrs\)"):
        await connect(address(standby.port, options=f"?target_session_attrs={choice}"))
