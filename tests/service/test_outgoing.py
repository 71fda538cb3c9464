"""The API's outgoing connections try every address of a name within one limit, and keep the name for TLS."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from ssl import Purpose, SSLContext, create_default_context
from urllib.parse import urlsplit

import asyncpg
import pytest
import uvloop
from aiohttp import web
from cryptography import x509
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from runtime.lookup import AddressInfo, Lookups
from service.api.jwks import KeySet, UnknownKey
from service.database.connection import StoreError, connect
from service.database.postgres_address import open_connection
from service.database.store import Store
from service.outgoing import _BY_LOOP, Outgoing, outgoing
from service.prices.alpaca_client import AlpacaClient, Credentials
from service.work.metrics import WorkMetrics
from service.work.protection import TaskProtection
from tests.runtime.test_connecting import at, dropping, refusing
from tests.sidecar.redis.test_tls import certificate
from tests.support.waiting import eventually

NAME = "db.example"


@pytest.fixture
def metrics() -> WorkMetrics:
    return WorkMetrics(CollectorRegistry())


def known(*addresses: AddressInfo) -> None:
    """Resolve every name to these addresses in this event loop."""
    _BY_LOOP[asyncio.get_running_loop()] = Outgoing(Lookups(lambda host, port: addresses))


@pytest.fixture
def port(samples_url: str) -> int:
    found = urlsplit(samples_url).port
    assert found is not None
    return found


@pytest.fixture
def url(samples_url: str) -> str:
    """The database's address with a host name instead of the IP address."""
    return samples_url.replace("127.0.0.1", NAME)


async def test_a_database_is_reached_although_the_first_addresses_drop_packets(url: str, port: int) -> None:
    with dropping() as first, dropping() as second:
        known(first, second, at(port))
        async with await Store.connect(url, connections=1) as store:
            await store.ping()
        await (await connect(url)).close()
        store_notices = store.listen()
        assert (await anext(store_notices)).missed
        await store_notices.aclose()


@asynccontextmanager
async def silent() -> AsyncIterator[AddressInfo]:
    """An address that accepts connections and never sends anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield at(listener.getsockname()[1])


async def test_a_database_is_reached_although_the_first_address_accepts_and_is_silent(url: str, port: int) -> None:
    async with silent() as first:
        known(first, at(port))
        connection = await open_connection(url, timeout=6)
        await connection.close()
        assert outgoing().silent == {first[4]}
        async with asyncio.timeout(5):
            for _ in range(3):  # the silent address is tried last now
                await (await open_connection(url, timeout=60)).close()


async def test_a_connection_to_a_name_whose_only_address_is_silent_ends_at_the_limit(url: str) -> None:
    async with silent() as only:
        known(only)
        with pytest.raises(TimeoutError):
            await open_connection(url, timeout=0.5)


async def test_an_address_that_refuses_connections_is_an_error_at_once(url: str) -> None:
    with refusing() as only:
        known(only)
        with pytest.raises(StoreError, match="cannot connect"):
            await connect(url)


@pytest.mark.parametrize("kind", ["drops", "silent"])
async def test_the_first_of_several_hosts_does_not_use_up_the_limit(samples_url: str, port: int, kind: str) -> None:
    async with AsyncExitStack() as stack:
        bad = stack.enter_context(dropping()) if kind == "drops" else await stack.enter_async_context(silent())
        several = samples_url.replace(f"127.0.0.1:{port}", f"127.0.0.1:{bad[4][1]},127.0.0.1:{port}")
        connection = await open_connection(several, timeout=6)
        assert await connection.fetchval("select 1") == 1
        await connection.close()


async def test_a_cancel_request_goes_to_the_server_of_the_connection(
    url: str, port: int, samples_url: str, stack: AsyncExitStack
) -> None:
    addresses = [at(port)]
    _BY_LOOP[asyncio.get_running_loop()] = Outgoing(Lookups(lambda host, port: list(addresses)))
    connection = await open_connection(url)
    pid = connection.get_server_pid()
    with dropping() as other:
        addresses[:] = [other]
        with pytest.raises(TimeoutError):
            await connection.execute("select pg_sleep(600)", timeout=0.3)
        raw = await asyncpg.connect(samples_url)
        stack.push_async_callback(raw.close)
        running = "select not exists (select from pg_stat_activity where pid = $1 and state = 'active')"
        await eventually(lambda: raw.fetchval(running, pid))
    connection.terminate()


class TlsFront:
    """A proxy that adds TLS to a Postgres, in the way that Postgres itself does."""

    def __init__(self, target: int, tls: SSLContext) -> None:
        self._target = target
        self._tls = tls
        self.names: list[str | None] = []
        tls.sni_callback = lambda _, name, __: self.names.append(name)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[AddressInfo]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield at(server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(8)  # SSLRequest
            writer.write(b"S")
            await writer.start_tls(self._tls)
            behind, out = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pump(reader, out), self._pump(behind, writer))
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
        writer.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize(("certified", "is_taken"), [(NAME, True), ("another.example", False)])
def test_the_certificate_must_match_the_name_whichever_address_answers(
    url: str,
    port: int,
    tmp_path: Path,
    certified: str,
    is_taken: bool,
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    pem = certificate(tmp_path, x509.DNSName(certified))
    tls = create_default_context(Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem)
    front = TlsFront(port, tls)

    async def opened() -> None:
        async with front.listening() as address:
            with dropping() as first:
                known(first, address)
                connection = await open_connection(f"{url}?sslmode=verify-full&sslrootcert={pem}")
                assert await connection.fetchval("select 1") == 1
                await connection.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        if is_taken:
            runner.run(opened())
        else:
            with pytest.raises(OSError, match="certificate verify failed"):
                runner.run(opened())
    assert front.names == [NAME]


@asynccontextmanager
async def serving(answer: Callable[[web.Request], web.Response]) -> AsyncIterator[AddressInfo]:
    """The address of an HTTP server that answers every request with this answer."""

    async def handle(request: web.Request) -> web.Response:
        return answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield at(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def test_key_server_and_price_source_are_reached_although_the_first_address_drops_packets() -> None:
    async with serving(lambda _: web.json_response({"keys": []})) as live:
        with dropping() as first:
            known(first, live)
            keys = KeySet("http://auth.example")
            with pytest.raises(UnknownKey):
                await keys.key("some", "ES256")
            await keys.aclose()
            alpaca = AlpacaClient("http://data.example", Credentials(SecretStr("one"), SecretStr("two")))
            assert await alpaca.get("/x", {}, alpaca.budget(5)) == {"keys": []}
            await alpaca.aclose()


async def test_the_ecs_agent_is_reached_past_dropped_packets_and_its_answer_is_bounded(
    metrics: WorkMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(lambda _: web.Response(body=b"{" + b" " * 10_000_000)) as live:
        with dropping() as first:
            known(first, live)
            protection = TaskProtection("http://agent.example", metrics)
            running = asyncio.create_task(protection.run())
            with protection.held():
                await eventually(lambda: "the answer is too large" in caplog.text)
            running.cancel()
            await asyncio.wait((running,))
