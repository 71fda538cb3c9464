"""Requests while the database does not answer."""

import asyncio

import pytest
from aiohttp import ClientSession

from runtime.addresses import Address
from runtime.listener import Listener
from service.api import store_access
from service.api.store_access import NO_ANSWER
from service.database.store import Store
from tests.support.proxy import Proxy
from tests.support.served_api import PORTFOLIO, Served
from tests.support.waiting import eventually

LIVE = f"/portfolios/{PORTFOLIO}/live"


async def test_one_request_per_interval_waits_for_a_database_that_does_not_answer(
    samples_url: str, session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_access, "PROBE_LIMIT", 0.2)
    monkeypatch.setattr(store_access, "PROBE_INTERVAL", 0.01)
    monkeypatch.setattr(store_access, "TRIAL_INTERVAL", 1000.0)
    port = int(samples_url.rpartition(":")[2].split("/")[0])
    async with Proxy(port) as proxy, await Store.connect(samples_url.replace(f":{port}", f":{proxy.port}")) as store:
        served = Served(store, session)
        probing = asyncio.create_task(served.access.run())
        await served.access.connected()
        async with served.listening(Listener, address=Address("127.0.0.1", 0)), asyncio.TaskGroup() as tasks:
            assert (await served.get(LIVE))[0] == 404
            proxy.black_hole()
            await eventually(lambda: served.access.trouble == NO_ANSWER)
            asking = [tasks.create_task(served.get(LIVE)) for _ in range(20)]
            await eventually(lambda: sum(each.done() for each in asking) == 19)
            answers = [await each for each in asking if each.done()]
            assert answers == [(503, {"error": "the database is not available"})] * 19
            (trial,) = (each for each in asking if not each.done())

            proxy.flow()
            assert (await trial)[0] == 404
            assert (await served.get(LIVE))[0] == 404, "the answer to the trial ends the refusals"
            await eventually(lambda: served.access.trouble is None)
        probing.cancel()
        await asyncio.wait((probing,))
