"""Replies that no Redis would send: they are never a success and never end a sidecar."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from ops.local.servers import RedisServer
from sidecar.protocol import Kind, Outcome
from sidecar.redis.replies import parse
from tests.sidecar.redis.test_watch import watching
from tests.sidecar.test_process import SMALL, Asker
from tests.support.processes import RealSidecar, killed_at_exit
from tests.support.proxy import Proxy
from tests.support.storing import TIMINGS, Storing, at_port, storing
from tests.support.waiting import eventually

TERM = b"%s %s boot-1 6000 1790000000000000 0 off - - - - a"
"""Template of a script's reply; its two placeholders are the outcome and the token."""


def bulk(content: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(content), content)


NONSENSE = {
    "http": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "tls": b"\x15\x03\x01\x00\x02\x02\x46\r\n",
    "empty line": b"\r\n",
    "ok": b"+OK\r\n",
    "a word": bulk(b"none"),
    "no length": b"$abc\r\n",
    "a negative length": b"$-7\r\n",
    "an endless length": b"$" + b"9" * 5000 + b"\r\n",
    "no number": b":abc\r\n",
    "an endless number": b":" + b"9" * 5000 + b"\r\n",
    "no size": b"*abc\r\n",
    "a negative size": b"*-7\r\n",
    "too deep": b"*1\r\n" * 5000,
    "bytes that are not text": bulk(b"\xff\xfe"),
    "an error without words": b"-\r\n",
    "an error that is not text": b"-\xff\xfe\r\n",
    "MOVED to nowhere": b"-MOVED x\r\n",
    "MOVED without words": b"-MOVED\r\n",
    "ASK": b"-ASK 1\r\n",
    "errors in a list": b"*3\r\n-MOVED x\r\n-ERR\r\n:1\r\n",
    "nothing": b"$-1\r\n",
    "no list": b"*-1\r\n",
    "a list of lists": b"*3\r\n*0\r\n*0\r\n*0\r\n",
    "another version of the protocol": b"%1\r\n+a\r\n+b\r\n",
    "a time of 400 digits": b"*2\r\n%s%s" % (bulk(b"9" * 400), bulk(b"0")),
    "a term without a token": bulk(TERM % (b"acquired", b"")),
    "a term with an unknown outcome": bulk(TERM % (b"won", b"1")),
    "a number of watches of 400 digits": bulk(b"held 1 boot-1 6000 1790000000000000 0 off - - %s 8 b" % (b"9" * 400)),
    "a number of direct watches below zero": bulk(b"held 1 boot-1 6000 1790000000000000 0 off - - 9 -8 b"),
    "a ttl of 400 digits": bulk(b"held 1 boot-1 %s 1790000000000000 0 off - - 9 8 b" % (b"9" * 400)),
    "a notice of numbers": b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n:5\r\n",
}


RUN_ID = bulk(b"run_id:0123\r\n")


class Hostile:
    """A server that answers every command with `nonsense`.

    If it `greets`, it answers the commands that set up a connection as Redis does. Then only calls get nonsense, and
    nonsense follows the answers to subscriptions. `answered` counts the nonsense replies to connections for calls and
    to connections of the watch.
    """

    def __init__(self, nonsense: bytes = b"", *, greets: bool = False) -> None:
        self.nonsense = nonsense
        self.greets = greets
        self.answered = {"calls": 0, "watch": 0}
        self.port = 0
        self._serving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Hostile"]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            try:
                yield self
            finally:
                server.close()
                await asyncio.gather(*self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._serving.add(task)
        with suppress(ConnectionError):
            while command := await reader.read(65536):
                writer.write(self._answer(command))
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def _answer(self, command: bytes) -> bytes:
        greeting = b""
        if self.greets and b"TIME\r\n" in command:
            return b"*2\r\n" + bulk(b"1790000000") + bulk(b"0") + bulk(b"maxmemory_policy:noeviction\r\n") + RUN_ID
        if self.greets and command.count(b"INFO\r\n"):
            return RUN_ID
        if self.greets and b"ID\r\n" in command:
            return b":7\r\n"
        if self.greets and b"TRACKING\r\n" in command:
            return b"+OK\r\n"
        if self.greets and b"SUBSCRIBE\r\n" in command:
            greeting = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"
            greeting *= command.count(b":changed") + command.count(b"__redis__:invalidate")
        self.answered["calls" if b"TIME\r\n" in command or b"EVAL\r\n" in command else "watch"] += 1
        return greeting + self.nonsense


every_nonsense = pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
at_each_stage = pytest.mark.parametrize("greets", [False, True], ids=["from the start", "once greeted"])


@at_each_stage
@every_nonsense
async def test_a_malformed_reply_fails_only_its_call(nonsense: bytes, greets: bool) -> None:
    async with Hostile(nonsense, greets=greets).listening() as server, storing(at_port(server.port)) as store:
        if greets:
            await eventually(lambda: _opens(store))
        else:
            assert await store.store.open() is not None
        # Some replies are incomplete, so the call waits for the rest.
        failure = await store.failure(Kind.ACQUIRE, limit=TIMINGS.call_limit)
        assert failure.text
        assert "\n" not in failure.text
        assert greets or not failure.may_execute, "the call was not sent"
        assert not store.store.connected


def test_a_reply_with_an_outcome_and_a_token_is_well_formed() -> None:
    """Otherwise the malformed terms above could fail for another reason than their names say."""
    reply = parse(TERM % (b"acquired", b"1"))[0]
    assert (reply.outcome, reply.token, reply.holder) == (Outcome.ACQUIRED, 1, "a")


async def _opens(store: Storing) -> bool:
    return await store.store.open() is None


@pytest.mark.parametrize("name", ["http", "no length", "no number", "no size", "MOVED to nowhere", "too deep"])
async def test_a_call_with_a_malformed_reply_is_reported_and_may_have_executed(name: str) -> None:
    async with Hostile(NONSENSE[name], greets=True).listening() as server, storing(at_port(server.port)) as store:
        failure = await store.failure(Kind.ACQUIRE)
        assert (failure.kind, failure.may_execute) == ("malformed", True)


@pytest.mark.parametrize(
    "words", [b"500 what is AUTH hunter2?\r\n", b"$hunter2\r\n", b"-ERR unknown command AUTH hunter2\r\n"]
)
async def test_an_error_that_may_repeat_the_password_is_not_shown(words: bytes) -> None:
    async with Hostile(words).listening() as server, storing(at_port(server.port, password="hunter2")) as store:
        assert "hunter2" not in (await store.failure(Kind.ACQUIRE)).text


@at_each_stage
@every_nonsense
async def test_the_watch_reconnects_after_a_malformed_reply(nonsense: bytes, greets: bool) -> None:
    async with Hostile(nonsense, greets=greets).listening() as server, watching(at_port(server.port), limit=2.0):
        await eventually(lambda: server.answered["watch"] >= 2)


@pytest.mark.slow
async def test_a_sidecar_stays_healthy_through_malformed_replies_and_leads_when_redis_is_back(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    server = Hostile()
    async with server.listening(), Proxy(server.port) as proxy, aiohttp.ClientSession() as session:
        sidecar = RealSidecar(tmp_path, redis_server, "task-a", **SMALL | {"REDIS_TIMEOUT": "0.1"})
        sidecar.environment["REDIS_URL"] = f"redis://127.0.0.1:{proxy.port}"
        with killed_at_exit(sidecar):
            sidecar.start()
            asker = Asker(sidecar, session)
            await eventually(asker.status)
            async with asyncio.TaskGroup() as tasks:
                asking = tasks.create_task(asker.campaign())
                for server.greets in (False, True):
                    for server.nonsense in NONSENSE.values():
                        server.answered = {"calls": 0, "watch": 0}
                        await eventually(lambda: min(server.answered.values()) >= 1)
                        assert await asker.is_healthy()
                assert asker.believes == []
                proxy.target = redis_server.port
                await proxy.cut()
                await eventually(lambda: asker.last.get("is_leader"))
                asking.cancel()
            assert "Traceback" not in sidecar.output
