"""A TLS fault is reported in one line that names the setting and the file, at the start or at a handshake."""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from ssl import CERT_REQUIRED, Purpose, SSLContext, TLSVersion, create_default_context
from threading import Thread
from typing import Any

import pytest
import uvloop

from ops.local.servers import RedisServer
from sidecar.protocol import Kind, Outcome, Timings
from sidecar.redis.connection import Connector
from sidecar.redis.failures import Failure
from sidecar.settings import read
from tests.support.proxy import Proxy
from tests.support.storing import storing
from tests.support.tls import DAY, Authority
from tests.support.tls_front import TlsFront

HOST = "127.0.0.1"
Run = Callable[[Coroutine[Any, Any, Any]], Any]
PATIENT = Timings(call_limit=4.0)
"""Timings with a longer limit for a handshake, because a busy machine may need several seconds."""


class Certificates:
    """Certificate files: of an authority, a server and a client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority("ours")
        self.ca = self.authority.write(folder / "ca.crt")
        self.server = self.authority.issue(HOST, folder / "server")
        self.certificate, self.key = self.authority.issue("client", folder / "client")

    def accepts(self, server: tuple[Path, Path] | None = None, *, clients: Path | None = None) -> SSLContext:
        """The TLS context of a server; `clients` is the CA of the client certificates that it requires."""
        context = create_default_context(Purpose.CLIENT_AUTH)
        context.load_cert_chain(*(server or self.server))
        if clients is not None:
            context.verify_mode = CERT_REQUIRED
            context.load_verify_locations(clients)
        return context


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def failure_with(run: Run, port: int, **environment: str) -> Failure:
    """The failure of a connection to a port with these settings, in an event loop of this kind."""

    async def connect() -> Failure | None:
        async with storing(Connector(read(settings).redis), timings=PATIENT) as store:
            return await store.store.open()

    settings = {name: value.replace("PORT", str(port)) for name, value in environment.items()}
    if "REDIS_URL" not in settings:
        settings |= {"REDIS_TLS": "true", "REDIS_HOST": HOST, "REDIS_PORT": str(port)}
    failure: Failure | None = run(connect())
    assert failure is not None
    assert "\n" not in failure.text
    return failure


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """The function that runs a coroutine in one kind of event loop.

    Each kind reports the end of a TLS connection in its own way. The sidecar uses uvloop; its commands use asyncio's
    loop.
    """
    loop: Run = request.param
    return loop


def test_a_server_certificate_of_another_ca_is_reported_with_the_configured_ca_file(
    run: Run, files: Certificates, tmp_path: Path
) -> None:
    other = Authority("other").write(tmp_path / "other.crt")
    with TlsFront(files.accepts()) as front:
        failure = failure_with(run, front.port, REDIS_TLS_CA_FILE=str(other))
        by_url = failure_with(run, front.port, REDIS_URL=f"rediss://{HOST}:PORT?ssl_ca_certs={other}")
    assert failure.kind == "tls"
    assert failure.text.startswith(f"the CA of the server's certificate is not in REDIS_TLS_CA_FILE ({other}) (")
    assert f"is not in the option ssl_ca_certs of REDIS_URL ({other}) (" in by_url.text


def test_a_server_certificate_of_an_unknown_ca_is_reported_with_the_ca_setting(run: Run, files: Certificates) -> None:
    with TlsFront(files.accepts()) as front:
        failure = failure_with(run, front.port)
    assert (failure.kind, "name it in REDIS_TLS_CA_FILE" in failure.text) == ("tls", True)


def test_an_expired_server_certificate_is_reported(run: Run, files: Certificates) -> None:
    expired = files.authority.issue(HOST, files.folder / "expired", valid_for=-DAY)
    with TlsFront(files.accepts(expired)) as front:
        failure = failure_with(run, front.port, REDIS_TLS_CA_FILE=str(files.ca))
    assert (failure.kind, failure.text.partition(" (")[0]) == ("tls", "the server's certificate has expired")


def test_a_server_certificate_that_is_not_valid_yet_is_reported(run: Run, files: Certificates) -> None:
    early = files.authority.issue(HOST, files.folder / "early", valid_from=DAY, valid_for=2 * DAY)
    with TlsFront(files.accepts(early)) as front:
        failure = failure_with(run, front.port, REDIS_TLS_CA_FILE=str(files.ca))
    expected = "the server's certificate is not valid yet, by the clock of this machine"
    assert (failure.kind, failure.text.partition(" (")[0]) == ("tls", expected)


def test_a_server_certificate_of_another_ca_than_those_in_the_url_is_reported(run: Run, files: Certificates) -> None:
    folder = files.folder / "cas"
    folder.mkdir()
    with TlsFront(files.accepts()) as front:
        failure = failure_with(run, front.port, REDIS_URL=f"rediss://{HOST}:PORT?ssl_ca_path={folder}")
    expected = "the CA of the server's certificate is not among those that REDIS_URL names"
    assert (failure.kind, failure.text.partition(" (")[0]) == ("tls", expected)


def test_a_server_without_a_common_cipher_is_reported_with_the_option(run: Run, files: Certificates) -> None:
    server = files.accepts()
    server.maximum_version = TLSVersion.TLSv1_2
    server.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    settings = {"REDIS_TLS_CERT_FILE": str(files.certificate), "REDIS_TLS_KEY_FILE": str(files.key)}
    with TlsFront(server) as front:
        url = f"rediss://{HOST}:PORT?ssl_ca_certs={files.ca}&ssl_ciphers=ECDHE-ECDSA-AES128-GCM-SHA256"
        failure = failure_with(run, front.port, REDIS_URL=url, **settings)
    assert failure.text.startswith("the server accepts none of the ciphers: see ssl_ciphers in REDIS_URL (")


def test_an_expired_ca_is_reported_with_its_file(run: Run, tmp_path: Path) -> None:
    authority = Authority("old", valid_for=-DAY)
    ca, server = authority.write(tmp_path / "old.crt"), authority.issue(HOST, tmp_path / "server")
    context = create_default_context(Purpose.CLIENT_AUTH)
    context.load_cert_chain(*server)
    with TlsFront(context) as front:
        failure = failure_with(run, front.port, REDIS_TLS_CA_FILE=str(ca))
    assert failure.text.startswith(f"the certificate of the CA in REDIS_TLS_CA_FILE ({ca}) has expired (")


def test_a_server_certificate_for_another_name_is_reported_with_that_name(run: Run, files: Certificates) -> None:
    other = files.authority.issue("redis.example", files.folder / "other")
    with TlsFront(files.accepts(other)) as front:
        failure = failure_with(run, front.port, REDIS_TLS_CA_FILE=str(files.ca))
    expected = "the server's certificate is not valid for '127.0.0.1', the host of this connection ("
    assert (failure.kind, failure.text.startswith(expected)) == ("tls", True)


def test_a_server_without_a_common_tls_version_is_reported_with_the_version(run: Run, files: Certificates) -> None:
    old = files.accepts()
    old.maximum_version = TLSVersion.TLSv1_2
    with TlsFront(old) as front:
        url = f"rediss://{HOST}:PORT?ssl_ca_certs={files.ca}&ssl_min_version=TLSv1.3"
        failure = failure_with(run, front.port, REDIS_URL=url)
    assert failure.text.startswith("the server has no TLS version of TLSv1.3 or later (")


@pytest.mark.parametrize("version", [TLSVersion.TLSv1_2, TLSVersion.TLSv1_3])
def test_a_server_that_requires_a_client_certificate_is_reported_with_the_setting(
    run: Run, files: Certificates, version: TLSVersion
) -> None:
    asking = files.accepts(clients=files.ca)
    asking.maximum_version = version
    with TlsFront(asking) as front:
        failure = failure_with(run, front.port, REDIS_TLS_CA_FILE=str(files.ca))
    assert failure.text.startswith("the server asks for a client's certificate")
    assert (failure.kind, "see REDIS_TLS_CERT_FILE (" in failure.text) == ("tls", True)


@pytest.mark.parametrize("version", [TLSVersion.TLSv1_2, TLSVersion.TLSv1_3])
def test_a_refused_client_certificate_is_reported_with_its_file(
    run: Run, files: Certificates, tmp_path: Path, version: TLSVersion
) -> None:
    expired = files.authority.issue("client", tmp_path / "expired", valid_for=-DAY)
    stranger = Authority("another").issue("client", tmp_path / "stranger")
    asking = files.accepts(clients=files.ca)
    asking.maximum_version = version
    for (certificate, key), why in ((expired, "it has expired"), (stranger, "the server does not trust its CA")):
        settings = {"REDIS_TLS_CERT_FILE": str(certificate), "REDIS_TLS_KEY_FILE": str(key)}
        with TlsFront(asking) as front:
            failure = failure_with(run, front.port, REDIS_TLS_CA_FILE=str(files.ca), **settings)
        expected = f"the server refuses the certificate in REDIS_TLS_CERT_FILE ({certificate}): {why} ("
        assert (failure.kind, failure.text[: len(expected)]) == ("tls", expected)


def test_a_close_after_the_tls_handshake_is_reported_as_a_possibly_missing_client_certificate(
    run: Run, files: Certificates
) -> None:
    with TlsFront(files.accepts()) as front:
        failure = failure_with(run, front.port, REDIS_TLS_CA_FILE=str(files.ca))
    expected = "the server has closed the connection after the TLS handshake; it may ask for a client's certificate"
    assert (failure.kind, failure.text[: len(expected)]) == ("tls", expected)
    assert "REDIS_TLS=true" not in failure.text


def test_a_close_during_the_tls_handshake_is_reported_as_a_server_that_may_not_speak_tls(
    run: Run, files: Certificates
) -> None:
    with socket.create_server((HOST, 0)) as server:

        def turn_away() -> None:
            with suppress(OSError):
                while True:
                    server.accept()[0].close()

        Thread(target=turn_away, daemon=True).start()
        failure = failure_with(run, server.getsockname()[1], REDIS_TLS_CA_FILE=str(files.ca))
        server.shutdown(socket.SHUT_RDWR)
    assert (failure.kind, "if the server does not speak TLS, use REDIS_TLS=false" in failure.text) == ("tls", True)


def test_tls_to_a_server_without_tls_is_reported_with_the_setting_that_turns_tls_off(
    run: Run, redis_server: RedisServer, files: Certificates
) -> None:
    failure = failure_with(run, redis_server.port, REDIS_TLS_CA_FILE=str(files.ca))
    assert "use REDIS_TLS=false" in failure.text


async def test_a_sidecar_with_a_valid_certificate_and_ca_leads(redis_server: RedisServer, files: Certificates) -> None:
    async with Proxy(redis_server.port, files.accepts(clients=files.ca)) as proxy:
        environment = {
            "REDIS_TLS": "true", "REDIS_HOST": HOST, "REDIS_PORT": str(proxy.port),
            "REDIS_TLS_CA_FILE": str(files.ca), "REDIS_TLS_CERT_FILE": str(files.certificate),
            "REDIS_TLS_KEY_FILE": str(files.key),
        }  # fmt: skip
        async with storing(Connector(read(environment).redis), timings=PATIENT) as store:
            assert await store.outcome(Kind.LOOK) is Outcome.VACANT


async def test_the_next_connection_uses_replaced_tls_files_unless_they_are_invalid(
    redis_server: RedisServer, files: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    renewed = Authority("renewed")
    async with Proxy(redis_server.port, files.accepts()) as proxy:
        environment = {
            "REDIS_TLS": "true", "REDIS_HOST": HOST, "REDIS_PORT": str(proxy.port), "REDIS_TLS_CA_FILE": str(files.ca),
        }  # fmt: skip
        async with storing(Connector(read(environment).redis), timings=PATIENT) as store:
            assert await store.store.open() is None
            files.ca.write_text("half of a certificate")
            await store.store.close()
            assert await store.store.open() is None  # with the previous CA
            warned = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
            assert [
                f"REDIS_TLS_CA_FILE: the file {files.ca} contains no certificate in PEM" in each for each in warned
            ] == [True]
            renewed.write(tmp_path / "new.crt").replace(files.ca)
            proxy.tls = files.accepts(renewed.issue(HOST, tmp_path / "renewed"))
            await proxy.refuse()
            await proxy.accept()
            assert await store.store.open() is None
