"""Every component logs one line when a lasting fault begins and one line when it ends."""

import logging
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest

from service.outage import Outage
from tests.support.processes import Service, Sidecar
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

logger = logging.getLogger("component")


def test_an_outage_is_one_line_when_it_begins_and_one_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    now = [10.0]
    outage = Outage(logger, "it fails: %s", "it works again", clock=lambda: now[0])
    with caplog.at_level(logging.INFO):
        outage.recovered()  # nothing has failed yet
        for _ in range(2):
            for reason in ("refused", "refused", "starting up"):
                outage.failed(reason, {"lease": "a"})
                now[0] += 4
            outage.recovered({"lease": "a"})
            outage.recovered()
    began, ended = ("WARNING", "it fails: refused"), ("INFO", "it works again, after 12 s and 3 failures")
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [began, ended, began, ended]
    assert {line.__dict__["lease"] for line in caplog.records} == {"a"}


@pytest.mark.slow
async def test_each_component_logs_an_outage_of_the_database_once_and_its_end_once(
    new_sidecar: Callable[..., Sidecar],
    new_service: Callable[..., Service],
    stack: AsyncExitStack,
    samples_url: str,
) -> None:
    address = urlsplit(samples_url)
    proxy = await stack.enter_async_context(Proxy(address.port or 0))
    url = samples_url.replace(f":{address.port}/", f":{proxy.port}/")
    sidecar = await stack.enter_async_context(new_sidecar("one"))
    service = await stack.enter_async_context(new_service("one", sidecar.url, DATABASE_URL=url))

    async def ticked() -> bool:
        status = await service.get_internal("/background/status")
        return status["jobs"]["tracker"]["last_run"] is not None

    async def failed_ticks() -> float:
        async with service.session.get(f"{service.internal_url}/metrics") as response:
            text = await response.text()
        found = re.search(r'^portfolio_tracker_ticks_total\{outcome="failed"\} (\S+)$', text, re.MULTILINE)
        return 0.0 if found is None else float(found[1])

    await eventually(ticked)
    components = {"service.api.store_access", "service.database.live_notifications", "service.work.tracker"}
    begun = len(service.lines())
    await proxy.refuse()

    def reports(component: str, *, bad: bool) -> list[str]:
        lines = [line for line in service.lines()[begun:] if line["logger"] == component]
        return [line["message"] for line in lines if (line["level"] != "INFO") == bad]

    await eventually(lambda: all(reports(each, bad=True) for each in components), within=60)
    failed = service.output.count("cannot connect")
    until = await failed_ticks() + 10  # meanwhile the service also probes and tries to listen

    async def failed_enough() -> bool:
        return await failed_ticks() >= until

    await eventually(failed_enough, within=60)
    assert service.output.count("cannot connect") <= failed + 1
    await proxy.accept()
    await eventually(lambda: all(reports(each, bad=False) for each in components), within=60)
    for component in components:
        faults = [text.partition(":")[0] for text in reports(component, bad=True)]
        assert len(faults) <= len(set(faults)) + (component == "service.api.store_access"), (
            faults
        )  # the probe may log two faults: connections are closed, and then refused
