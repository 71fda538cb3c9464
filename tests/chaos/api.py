"""The api container of a chaos run: `python -m tests.chaos.api service|writer [--without-fence]`.

`service` is the product's own API. `writer` is a client that only does fenced writes under both leases, most of them in
slow transactions. Both keep a diary (`tests.chaos.diary`). With `--without-fence` stale terms may write too; the run
must report their writes.
"""

import asyncio
import logging
import os
import random
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

from aiohttp import web

from service import __main__ as product
from service.database.connection import StoreError
from service.database.store import Store
from service.settings import Settings
from service.work.background import Background
from service.work.term import claim_fence
from sidecar.client import LeaseClient, Term
from tests.chaos.database import add_entry
from tests.chaos.diary import VARIABLE, Diary, observe
from tests.chaos.schedule import LEASES

LONGEST = 0.15
"""Maximum seconds of each pause: inside a transaction, between a check and its write, and between two writes."""
UNCANCELLABLE = 0.5
"""Share of the writes that a cancellation does not interrupt."""

logger = logging.getLogger(__name__)


async def write(store: Store, term: Term, diary: Diary) -> None:
    """Write through the fence in a loop until the term is over."""
    await claim_fence(store, term)
    while True:
        term.check()
        try:
            if random.random() < UNCANCELLABLE:
                await _to_its_end(_checked_long_ago(store, term, diary))
            else:
                await asyncio.sleep(random.uniform(0, LONGEST))
                await _write_once(store, term)
        except StoreError as error:
            logger.warning("write failed: %s", error)
            await asyncio.sleep(0.2)
        await asyncio.sleep(random.uniform(0, LONGEST))


async def _write_once(store: Store, term: Term) -> None:
    async with store.fenced(term) as writes:
        if random.random() < 0.5:
            await asyncio.sleep(random.uniform(0, LONGEST))
        await add_entry(writes, term.name, term.token)
        if random.random() < 0.5:
            await asyncio.sleep(random.uniform(0, LONGEST))


async def _checked_long_ago(store: Store, term: Term, diary: Diary) -> None:
    """Wait after the caller's check of the term, then write.

    The diary records the start and the end of the wait, because a freeze during the wait does the most harm.
    """
    diary.write("checked", lease=term.name, token=term.token, pid=os.getpid())
    await asyncio.sleep(random.uniform(LONGEST / 3, LONGEST))
    diary.write("writes", lease=term.name, token=term.token, pid=os.getpid())
    await _write_once(store, term)


async def _to_its_end(step: Coroutine[None, None, None]) -> None:
    """Run a step to its end even if the work is cancelled, like a step in a thread; a cancellation waits for the end.

    Otherwise a client that was frozen would cancel the step before the step has sent a byte, and nothing would test the
    fence.
    """
    running = asyncio.ensure_future(step)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise


def without_fence() -> None:
    """Let every term of this process write from now on."""

    async def let_in(*_: object) -> None:
        pass

    patch.object(Store, "_enter_fence", let_in).start()


async def serve_writer(settings: Settings, diary: Diary) -> None:
    """Campaign for both leases until SIGTERM, then stop the work, resign and end."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runner = web.AppRunner(_health(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, settings.api_bind.host, settings.api_bind.port).start()
    try:
        async with LeaseClient(settings.sidecar_url) as client, asyncio.TaskGroup() as group:
            working = group.create_task(_work(settings, client, diary))
            await stop.wait()
            working.cancel()
    finally:
        await runner.cleanup()


async def _work(settings: Settings, client: LeaseClient, diary: Diary) -> None:
    store = await _connected(settings)
    try:
        background = Background(client, pause=(0.2, 1.0))
        await background.run(dict.fromkeys(LEASES, lambda term: write(store, term, diary)))
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(2):  # the database may be frozen
                await store.close()


async def _connected(settings: Settings) -> Store:
    while True:
        try:
            return await Store.connect(settings.database_url.get_secret_value(), connections=2, idle_limit=1.0)
        except StoreError as error:
            logger.warning("not connected yet: %s", error)
            await asyncio.sleep(0.3)


def _health() -> web.Application:
    async def well(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    app = web.Application()
    app.router.add_get("/healthz", well)
    return app


def main(arguments: list[str]) -> int:
    """Run the service or the writer, and return its exit status."""
    diary = Diary(Path(os.environ[VARIABLE]))
    observe(diary)
    match arguments:
        case [program]:
            pass
        case [program, "--without-fence"]:
            without_fence()
        case _:
            program = ""
    if program == "service":
        return product.main([])
    if program == "writer":
        return product.run(lambda settings: serve_writer(settings, diary))
    raise SystemExit("usage: python -m tests.chaos.api service|writer [--without-fence]")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
