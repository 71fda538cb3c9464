"""The kind and the text of each error of Redis, with the error texts of Redis 6.2, 7.0, 8.0 and Valkey."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoPermissionError, ResponseError

from ops.local.servers import RedisServer
from runtime.lookup import AddressInfo, Lookups, system_lookup
from sidecar.protocol import Kind, Outcome, Timings
from sidecar.redis.connection import Connector
from sidecar.redis.failures import LONGEST, failure_of
from sidecar.scripts import script
from sidecar.settings import RedisAddress, read
from tests.sidecar.redis.test_tls import front as front
from tests.sidecar.redis.test_tls import pem as pem
from tests.support.proxy import Proxy
from tests.support.storing import storing

SHA = "d3b6d115e5c725cf8608878e3c07d08ddbd92f74"
RIGHTS = "docs/redis.md lists the rights that the user needs"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (NoPermissionError("this user has no permissions to run the 'client|tracking' command"), "CLIENT TRACKING"),
        (NoPermissionError("this user has no permissions to run the 'get' command or its subcommand"), "GET"),
        (NoPermissionError("User sidecar has no permissions to run the 'get' command"), "GET"),
        (
            ResponseError(
                f"Error running script (call to f_{SHA}): @user_script:4: PTTL: @user_script: 3: The user executing the"
                " script can't run this command or subcommand"
            ),
            "PTTL",
        ),
        (
            ResponseError(
                "PTTL: ERR The user executing the script can't run this command or subcommand"
                f" script: {SHA}, on @user_script:4."
            ),
            "PTTL",
        ),
        (
            ResponseError(
                "PTTL: ERR ACL failure in script: User sidecar has no permissions to run the 'pttl' command"
                f" script: {SHA}, on @user_script:4."
            ),
            "PTTL",
        ),
    ],
)
def test_a_refused_command_is_named_in_the_error(error: Exception, says: str) -> None:
    failure = failure_of(error, may_execute=False)
    assert (failure.kind, failure.text) == ("noperm", f"no permission for the command {says}; {RIGHTS}")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("this user has no permissions to access one of the keys used as arguments", "the key K or F"),
        ("User sidecar has no permissions to access the 'K' key", "the key K or F"),
        ("this user has no permissions to access one of the channels used as arguments", "the channel C"),
        ("User sidecar has no permissions to access the 'C' channel", "the channel C"),
    ],
)
def test_a_refused_key_or_channel_is_named_in_the_error(words: str, says: str) -> None:
    failure = failure_of(NoPermissionError(words), may_execute=False, keys=["K", "F"], channels=["C"])
    assert (failure.kind, failure.text) == ("noperm", f"no permission for {says}; {RIGHTS}")


def test_a_refusal_that_names_nothing_is_shown_in_the_words_of_the_server() -> None:
    failure = failure_of(NoPermissionError("this user may do nothing today"), may_execute=False)
    assert (failure.kind, failure.text) == ("noperm", "no permission: this user may do nothing today")


def test_a_script_error_shows_neither_the_script_hash_nor_a_line_number(any_redis: Redis) -> None:
    any_redis.lpush("list", "x")
    with pytest.raises(ResponseError) as raised:
        any_redis.eval(script("call") + "return call('GET', KEYS[1])", 1, "list")
    failure = failure_of(raised.value, may_execute=False)
    assert failure.text == "GET: WRONGTYPE Operation against a key holding the wrong kind of value"


def test_an_error_text_is_one_line_of_bounded_length() -> None:
    failure = failure_of(ResponseError("a\x1b[2J" + "x" * 10_000), may_execute=False)
    assert failure.text.startswith(r"a\x1b[2Jxxx")
    assert len(failure.text) <= LONGEST
    assert failure_of(Disconnected(""), may_execute=True).text == "ConnectionError"


async def test_an_error_from_a_server_that_expects_tls_gives_a_hint(front: Proxy) -> None:
    async with storing(Connector(_at(f"redis://127.0.0.1:{front.port}"))) as store:
        failure = await store.store.open()
    assert failure is not None
    assert failure.kind == "connection"
    assert "a server that expects TLS also does this: set REDIS_TLS=true, or rediss:// in REDIS_URL" in failure.text


async def test_a_server_that_has_answered_before_it_ends_the_connection_is_not_said_to_expect_tls() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"TIME\r\n")
        writer.write(b"*2\r\n:1790000000\r\n:0\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with storing(Connector(_at(f"redis://127.0.0.1:{port}"))) as store:
            failure = await store.store.open()
    assert failure is not None
    assert failure.kind == "connection"
    assert "TLS" not in failure.text


async def test_an_error_from_a_server_without_tls_gives_a_hint(pem: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"-ERR Protocol error\r\n")
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with storing(Connector(_at(f"rediss://127.0.0.1:{port}?ssl_ca_certs={pem}"))) as store:
            failure = await store.store.open()
    assert failure is not None
    assert failure.kind == "tls"
    assert "the server does not speak TLS; use redis:// in REDIS_URL" in failure.text


async def test_an_unanswered_tls_handshake_is_reported_as_a_server_without_tls(
    redis_server: RedisServer, pem: Path
) -> None:
    async with Proxy(redis_server.port) as plain:
        plain.requests.lose()  # like a server that waits for the rest of a command
        at = _at(f"rediss://127.0.0.1:{plain.port}?ssl_ca_certs={pem}")
        async with storing(Connector(at)) as store:
            failure = await store.store.open()
    assert failure is not None
    assert failure.kind == "timeout"
    assert failure.text == "no answer to the TLS handshake; if the server does not speak TLS, use redis:// in REDIS_URL"


async def test_a_timeout_after_the_tls_handshake_does_not_suggest_a_server_without_tls(
    redis: Redis, front: Proxy, pem: Path
) -> None:
    front.requests.lose()  # the handshake succeeds, but the AUTH that follows gets no answer
    at = _at(f"rediss://:word@127.0.0.1:{front.port}?ssl_ca_certs={pem}")
    async with storing(Connector(at), timings=Timings(call_limit=3.0)) as store:
        failure = await store.store.open()
    assert failure is not None
    assert (failure.kind, failure.text) == ("timeout", "no answer in time")


class Sentinel(RedisServer):
    """A Sentinel without a primary."""

    def command(self) -> list[str]:
        file = self.folder / "sentinel.conf"
        file.write_text(f"bind 127.0.0.1\nport {self.port}\ndir {self.folder}\n")
        return [str(self.binary), str(file), "--sentinel"]


@pytest.mark.parametrize("database", ["", "/3"])
async def test_a_connection_to_a_sentinels_port_gives_a_hint(tmp_path: Path, database: str) -> None:
    with Sentinel(tmp_path) as sentinel:
        async with storing(Connector(_at(f"redis://127.0.0.1:{sentinel.port}{database}"))) as store:
            failure = await store.store.open()
    assert failure is not None
    assert failure.kind == "response"
    assert failure.text.endswith("; a Sentinel answers like this: put its address into REDIS_SENTINELS")


async def test_a_hanging_name_lookup_is_reported_as_the_cause(redis: Redis, redis_server: RedisServer) -> None:
    hangs = Event()

    def look_up(host: str, port: int) -> Sequence[AddressInfo]:
        hangs.wait()
        return system_lookup("127.0.0.1", redis_server.port)

    address = RedisAddress("redis://redis.example", None, "redis.example", 6379, None, None)
    try:
        async with storing(Connector(address, lookups=Lookups(look_up))) as store:
            failure = await store.timeout(Kind.LOOK)
            assert failure.text == "the lookup of the name redis.example gave no result in time"
            hangs.set()
            assert await store.outcome(Kind.LOOK) is Outcome.VACANT
    finally:
        hangs.set()


def _at(url: str) -> RedisAddress:
    return read({"REDIS_URL": url}).redis
