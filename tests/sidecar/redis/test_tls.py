"""Redis over TLS, like ElastiCache with encryption in transit: sidecar processes and real certificates."""

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from socket import socket
from ssl import MemoryBIO, Purpose, SSLWantReadError, create_default_context

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ops.local.servers import RedisServer
from sidecar.protocol import Timings
from sidecar.redis.connection import Connector
from sidecar.settings import read
from tests.sidecar.conftest import client_of
from tests.sidecar.redis.test_malformed import Hostile
from tests.sidecar.test_process import SMALL, STEADY, Asker, logged
from tests.support.processes import RealSidecar, killed_at_exit
from tests.support.proxy import Proxy
from tests.support.storing import storing
from tests.support.tls_front import TlsFront
from tests.support.waiting import eventually

PASSWORD = "correct-horse"


def certificate(folder: Path, *names: x509.GeneralName) -> Path:
    """Write a self-signed certificate for a server of these names, followed by its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "redis.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(signed.public_bytes(Encoding.PEM) + private)
    return file


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    return certificate(tmp_path, x509.IPAddress(IPv4Address("127.0.0.1")))


@pytest.fixture
async def front(redis_of_its_own: RedisServer, pem: Path) -> AsyncIterator[Proxy]:
    """A proxy that speaks TLS for a Redis with a password."""
    with client_of(redis_of_its_own) as redis:
        redis.config_set("requirepass", PASSWORD)
    tls = create_default_context(Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem)
    async with Proxy(redis_of_its_own.port, tls) as proxy:
        yield proxy


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def sidecar(
    folder: Path, name: str, server: RedisServer, front: Proxy, options: str, timings: dict[str, str] = STEADY
) -> RealSidecar:
    """A sidecar that reaches the server over TLS.

    The default timings are long, because a handshake may take seconds on a busy machine.
    """
    sidecar = RealSidecar(folder, server, name, **timings)
    sidecar.environment["REDIS_URL"] = f"rediss://:{PASSWORD}@127.0.0.1:{front.port}{options}"
    return sidecar


class Departing(TlsFront):
    """A server that answers the greeting of a store and, unless it `stays`, ends the stream in the same segment."""

    stays = True

    def _shake_hands(self, client: socket) -> None:
        incoming, outgoing, heard = MemoryBIO(), MemoryBIO(), b""
        stream = self._tls.wrap_bio(incoming, outgoing, server_side=True)
        with client, suppress(OSError):
            client.settimeout(20)
            while not heard.endswith(b"server\r\n"):
                try:
                    heard += stream.read(65536)
                except SSLWantReadError:
                    client.sendall(outgoing.read())
                    incoming.write(client.recv(65536) or b"the end, which is no TLS")
            stream.write(Hostile(greets=True)._answer(heard))
            if not self.stays:
                with suppress(SSLWantReadError):
                    stream.unwrap()
            client.sendall(outgoing.read())
            client.recv(65536)  # the end of the client's stream


async def test_a_connection_that_ends_with_the_answers_to_its_greeting_is_not_used(pem: Path) -> None:
    """Nothing would report the end of such a connection, and without this report the loop connects without a pause."""
    tls = create_default_context(Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem)
    with Departing(tls) as server:
        url = f"rediss://127.0.0.1:{server.port}?ssl_ca_certs={pem}"
        async with storing(Connector(read({"REDIS_URL": url}).redis), timings=Timings()) as store:
            assert await store.store.open() is None
            server.stays = False
            replaced = await store.store.replace()
            assert replaced is not None
            assert (replaced.kind, store.store.connected) == ("connection", True), "the old connection stays in use"
            await store.store.close()
            opened = await store.store.open()
            assert opened is not None
            assert (opened.kind, store.store.connected) == ("connection", False)


async def test_sidecars_hand_the_lease_over_with_tls(
    redis_of_its_own: RedisServer, front: Proxy, pem: Path, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    pair = [sidecar(tmp_path, name, redis_of_its_own, front, f"?ssl_ca_certs={pem}") for name in ("task-a", "task-b")]
    with killed_at_exit(*pair):
        one, other = (Asker(each, session) for each in pair)
        for each in (one, other):
            each.sidecar.start()
            await eventually(each.status)
        await eventually(lambda: _leads(one))
        assert not (await other.ask())["is_leader"]
        await one.resign()
        await eventually(lambda: _leads(other))
        assert other.believes[0][2] > one.believes[0][2]
        await eventually(lambda: _watches(other))


@pytest.mark.parametrize("options", ["", "?ssl_ca_certs={other}"], ids=["no authority", "another authority"])
async def test_a_server_certificate_of_an_unknown_ca_is_not_trusted(
    redis_of_its_own: RedisServer, front: Proxy, tmp_path: Path, session: aiohttp.ClientSession, options: str
) -> None:
    (tmp_path / "other").mkdir()
    other = certificate(tmp_path / "other", x509.DNSName("localhost"))
    await _is_refused(
        sidecar(tmp_path, "task-a", redis_of_its_own, front, options.format(other=other)),
        session,
        "certificate verify failed",
    )


async def test_a_server_certificate_for_another_name_is_not_trusted(
    redis_of_its_own: RedisServer, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    pem = certificate(tmp_path, x509.DNSName("elsewhere.example"))
    tls = create_default_context(Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem)
    async with Proxy(redis_of_its_own.port, tls) as front:
        await _is_refused(
            sidecar(tmp_path, "task-a", redis_of_its_own, front, f"?ssl_ca_certs={pem}"), session, "is not valid for"
        )


async def test_tls_to_a_server_without_tls_is_reported(
    redis_of_its_own: RedisServer, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with Proxy(redis_of_its_own.port) as plain:
        refused = sidecar(tmp_path, "task-a", redis_of_its_own, plain, "", SMALL)
        await _is_refused(refused, session, "use redis:// in REDIS_URL")  # the server may wait or refuse


async def test_certificate_verification_can_be_turned_off(
    redis_of_its_own: RedisServer, front: Proxy, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    trusting = sidecar(tmp_path, "task-a", redis_of_its_own, front, "?ssl_cert_reqs=none&ssl_check_hostname=false")
    with killed_at_exit(trusting):
        trusting.start()
        asker = Asker(trusting, session)
        await eventually(asker.status)
        await eventually(lambda: _leads(asker))


async def _leads(asker: Asker) -> bool:
    return bool((await asker.ask())["is_leader"])


async def _is_refused(sidecar: RealSidecar, session: aiohttp.ClientSession, trouble: str) -> None:
    """Check that the sidecar stays healthy, does not lead, reports the reason, and never shows the password."""
    with killed_at_exit(sidecar):
        sidecar.start()
        asker = Asker(sidecar, session)
        await eventually(asker.status)
        await eventually(lambda: _reports(asker, trouble))
        assert await asker.is_healthy()
        status = await asker.status()
    assert any(trouble in line["message"] for line in logged(sidecar, "Redis failed"))
    assert PASSWORD not in sidecar.output + str(status)


async def _reports(asker: Asker, trouble: str) -> bool:
    assert (await asker.ask())["state"] != "leading"
    return trouble in ((await asker.status())["trouble"] or "")


async def _watches(asker: Asker) -> bool:
    return bool((await asker.status())["watch"]["mode"] == "tracking")
