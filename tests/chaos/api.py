"""The api container of a chaos run: `python -m tests.chaos.api service|writer`.

`service` is the product's own API, `writer` a client that does nothing but fenced writes under both leases, half of
them in transactions that take their time. Both keep a diary (`tests.chaos.diary`).
"""

import asyncio
import logging
import os
import random
import signal
import sys
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from service import __main__ as product
from service.background import Background
from service.database import StoreError
from service.settings import Settings
from service.store import Store
from service.term import take_up
from sidecar.client import LeaseClient, Term
from tests.chaos.database import add_entry
from tests.chaos.diary import VARIABLE, Diary, observe
from tests.chaos.schedule import LEASES

LONGEST = 0.15
"""How long, in seconds, a transaction stays open at most."""

logger = logging.getLogger(__name__)


async def write(store: Store, term: Term) -> None:
    """Write through the fence, again and again, until the term is over."""
    await take_up(store, term)
    while True:
        term.check()
        try:
            async with store.fenced(term.name, term.token, term.holder) as writes:
                if random.random() < 0.5:
                    await asyncio.sleep(random.uniform(0, LONGEST))
                await add_entry(writes, term.name, term.token)
                if random.random() < 0.5:
                    await asyncio.sleep(random.uniform(0, LONGEST))
        except StoreError as error:
            logger.warning("write failed: %s", error)
            await asyncio.sleep(0.2)
        await asyncio.sleep(random.uniform(0, LONGEST))


async def serve_writer(settings: Settings) -> None:
    """Campaign for both leases until SIGTERM, then stop the work, resign and leave."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runner = web.AppRunner(_health(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, settings.api_bind.host, settings.api_bind.port).start()
    try:
        async with LeaseClient(settings.sidecar_url) as client, asyncio.TaskGroup() as group:
            working = group.create_task(_work(settings, client))
            await stop.wait()
            working.cancel()
    finally:
        await runner.cleanup()


async def _work(settings: Settings, client: LeaseClient) -> None:
    store = await _connected(settings)
    try:
        background = Background(client, pause=(0.2, 1.0))
        await background.run(dict.fromkeys(LEASES, lambda term: write(store, term)))
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
    """Returns the exit status of the product's own command line."""
    observe(Diary(Path(os.environ[VARIABLE])))
    if arguments == ["service"]:
        return product.main([])
    if arguments == ["writer"]:
        return product.run(serve_writer)
    raise SystemExit("usage: python -m tests.chaos.api service|writer")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
