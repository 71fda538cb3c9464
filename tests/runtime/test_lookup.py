"""Callers share a name lookup, and its result is used once. A lookup does not delay the end of the process."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytest

from runtime.http_resolver import SharedResolver
from runtime.lookup import MAX_RESULT_AGE, AddressInfo, Lookups, system_lookup
from tests.support.waiting import eventually

HOST, PORT = "redis.example", 6379
FIRST, SECOND = (
    [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, PORT))] for address in ("192.0.2.1", "192.0.2.2")
)


class Resolver:
    """A resolver in which each lookup waits until the test ends it."""

    def __init__(self) -> None:
        self.asked = 0
        self._answers: list[Sequence[AddressInfo] | Exception] = []
        self._told = threading.Semaphore(0)

    def __call__(self, host: str, port: int) -> Sequence[AddressInfo]:
        self.asked += 1
        number = self.asked - 1
        self._told.acquire()
        answer = self._answers[number]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def answer(self, answer: Sequence[AddressInfo] | Exception) -> None:
        """End the oldest lookup under way."""
        self._answers.append(answer)
        self._told.release()


async def start_lookup(lookups: Lookups) -> asyncio.Task[Sequence[AddressInfo]]:
    task = asyncio.create_task(lookups.addresses(HOST, PORT))
    await asyncio.sleep(0)
    return task


async def wait_until_idle(lookups: Lookups) -> None:
    await eventually(lambda: not lookups.pending(HOST, PORT))


async def test_concurrent_callers_share_one_lookup() -> None:
    resolver = Resolver()
    lookups = Lookups(resolver)
    waiting = [await start_lookup(lookups) for _ in range(5)]
    resolver.answer(FIRST)
    assert await asyncio.gather(*waiting) == [FIRST] * 5
    assert resolver.asked == 1


async def test_a_lookup_survives_its_callers_and_the_next_caller_gets_the_result_once() -> None:
    resolver = Resolver()
    lookups = Lookups(resolver)
    for _ in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await lookups.addresses(HOST, PORT)
    assert resolver.asked == 1, "an abandoned attempt started another lookup"
    resolver.answer(FIRST)
    await wait_until_idle(lookups)
    assert await lookups.addresses(HOST, PORT) == FIRST
    assert resolver.asked == 1
    again = await start_lookup(lookups)
    resolver.answer(SECOND)
    assert await again == SECOND, "a result was used twice"


async def test_a_shared_result_is_not_used_again() -> None:
    resolver = Resolver()
    lookups = Lookups(resolver)
    waiting = [await start_lookup(lookups), await start_lookup(lookups)]
    resolver.answer(FIRST)
    await asyncio.gather(*waiting)
    again = await start_lookup(lookups)
    resolver.answer(SECOND)
    assert await again == SECOND


async def test_a_cancelled_caller_does_not_cancel_the_shared_lookup() -> None:
    resolver = Resolver()
    lookups = Lookups(resolver)
    gone, waits = await start_lookup(lookups), await start_lookup(lookups)
    gone.cancel()
    resolver.answer(FIRST)
    assert await waits == FIRST


async def test_a_result_from_before_a_change_of_server_is_not_used() -> None:
    resolver = Resolver()
    lookups = Lookups(resolver)
    gone = await start_lookup(lookups)
    gone.cancel()
    resolver.answer(FIRST)
    await wait_until_idle(lookups)
    lookups.forget(HOST, PORT)
    waits = await start_lookup(lookups)
    assert resolver.asked == 2, "the kept result was used"
    resolver.answer(SECOND)
    assert await waits == SECOND


async def test_a_lookup_during_a_change_of_server_is_repeated_after_it_ends() -> None:
    resolver = Resolver()
    lookups = Lookups(resolver)
    first = await start_lookup(lookups)
    lookups.forget(HOST, PORT)
    second = await start_lookup(lookups)
    assert resolver.asked == 1, "two lookups of one name ran at a time"
    resolver.answer(FIRST)
    resolver.answer(SECOND)
    assert [await first, await second] == [SECOND, SECOND]


async def test_an_outdated_lookup_without_callers_leaves_no_result() -> None:
    resolver = Resolver()
    lookups = Lookups(resolver)
    (await start_lookup(lookups)).cancel()
    lookups.forget(HOST, PORT)
    resolver.answer(FIRST)
    await wait_until_idle(lookups)
    waits = await start_lookup(lookups)
    resolver.answer(SECOND)
    assert await waits == SECOND
    assert resolver.asked == 2


async def test_a_kept_result_expires() -> None:
    resolver, now = Resolver(), [0.0]
    lookups = Lookups(resolver, clock=lambda: now[0])
    (await start_lookup(lookups)).cancel()
    resolver.answer(FIRST)
    await wait_until_idle(lookups)
    now[0] = MAX_RESULT_AGE
    waits = await start_lookup(lookups)
    resolver.answer(SECOND)
    assert await waits == SECOND


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), UnicodeError("label too long")]
)
async def test_every_caller_gets_the_failure_and_the_next_caller_looks_up_again(error: Exception) -> None:
    resolver = Resolver()
    lookups = Lookups(resolver)
    waiting = [await start_lookup(lookups), await start_lookup(lookups)]
    resolver.answer(error)
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, socket.gaierror)
    again = await start_lookup(lookups)
    resolver.answer(FIRST)
    assert await again == FIRST


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_numeric_address_needs_no_lookup(host: str) -> None:
    def fails(*_: object) -> Sequence[AddressInfo]:
        raise AssertionError("looked up")

    [(_, kind, _, _, address)] = await Lookups(fails).addresses(host, PORT)
    assert (kind, address[:2]) == (socket.SOCK_STREAM, (host, PORT))


async def test_the_system_resolver_resolves_localhost() -> None:
    found = await Lookups(system_lookup).addresses("localhost", PORT)
    assert {info[4][1] for info in found} == {PORT}


async def test_the_aiohttp_resolver_shares_lookups() -> None:
    lookups = Lookups(lambda host, port: [*FIRST, *SECOND])
    found = await SharedResolver(lookups).resolve(HOST, PORT)
    assert [(each["hostname"], each["host"], each["port"]) for each in found] == [
        (HOST, "192.0.2.1", PORT),
        (HOST, "192.0.2.2", PORT),
    ]
    with pytest.raises(OSError, match="no address of the requested family"):
        await SharedResolver(lookups).resolve(HOST, PORT, socket.AF_INET6)


HANGS = """
import asyncio, {loop} as loops, time
from runtime.lookup import Lookups

async def main():
    lookups = Lookups(lambda host, port: time.sleep(60))
    for _ in range(30):
        try:
            async with asyncio.timeout(0.01):
                await lookups.addresses("redis.example", 6379)
        except TimeoutError:
            pass
    hangs = asyncio.create_task(lookups.addresses("redis.example", 6379))
    await asyncio.sleep(0.01)

loops.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_hanging_lookup_does_not_delay_the_end_of_the_process(loop: str) -> None:
    began = time.monotonic()
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", HANGS.format(loop=loop)], capture_output=True, text=True, timeout=50
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert time.monotonic() - began < 50


AFTER_THE_LOOP = """
import asyncio, {loop} as loops, socket, threading, time
from runtime.lookup import Lookups

goes_on = threading.Event()

def look_up(host, port):
    goes_on.wait()
    raise socket.gaierror(socket.EAI_NONAME, "unknown")

async def main():
    lookups = Lookups(look_up)
    try:
        async with asyncio.timeout(0.01):
            await lookups.addresses("redis.example", 6379)
    except TimeoutError:
        pass

loops.run(main())
goes_on.set()
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join()
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_lookup_that_ends_after_the_loop_is_closed_prints_nothing(loop: str) -> None:
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", AFTER_THE_LOOP.format(loop=loop)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
