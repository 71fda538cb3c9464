"""A whole process with a fake Alpaca and a fake ECS agent: prices become values, and jobs protect the task."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import ClientSession

from service.commands.samples import SAMPLES
from tests.service.prices.alpaca_server import KEY_ID, SECRET_KEY, Alpaca, trade
from tests.service.work.test_protection import Agent
from tests.support.fake_sidecar import LeadingSidecar
from tests.support.processes import LIMIT, Service
from tests.support.served_api import PORTFOLIO
from tests.support.waiting import eventually

PRICES = {"AAPL": "191.2350", "MSFT": "402.5", "NVDA": "130.01"}


async def nothing(_: str) -> None:
    """Do nothing on a resign."""


async def test_alpaca_s_prices_are_valued_and_the_jobs_protect_the_task_without_a_secret_in_the_log(
    new_service: Callable[..., Service], stack: AsyncExitStack, session: ClientSession
) -> None:
    snapshots = {symbol: trade(price) for symbol, price in PRICES.items()}
    alpaca = await stack.enter_async_context(Alpaca(snapshots, invalid={"KO"}).serving())
    agent = await stack.enter_async_context(Agent().serving())
    sidecar = await stack.enter_async_context(LeadingSidecar(nothing))
    settings = {
        "PRICE_SOURCE": "alpaca",
        "APCA_API_KEY_ID": KEY_ID,
        "APCA_API_SECRET_KEY": SECRET_KEY,
        "ALPACA_DATA_URL": alpaca.url,
        "ECS_AGENT_URI": agent.uri,
        "TRACKER_INTERVAL": "1",
        "LOG_LEVEL": "debug",
    }
    service = await stack.enter_async_context(new_service("one", sidecar.url, **settings))

    async def value_of(portfolio: object) -> dict[str, str] | None:
        async with session.get(f"{service.url}/portfolios/{portfolio}/live") as response:
            live = await response.json() if response.status == 200 else None
        return live if live is not None and live["unpriced_symbols"] == [] else None

    live = await eventually(lambda: value_of(PORTFOLIO))
    _, _, held = SAMPLES[PORTFOLIO]
    assert Decimal(live["value"]) == sum(Decimal(quantity) * Decimal(PRICES[s]) for s, quantity in held.items())
    assert live["stale"] is True  # the trades are old
    assert (live["priced_fraction"], live["oldest_price_at"][:19]) == ("1.0000", "2026-02-13T15:30:00")

    async def jobs_are_done() -> bool:
        return len(agent.put) >= 2 and not agent.protected

    async def ko_is_refused() -> bool:
        return "Alpaca refuses KO" in service.output

    await eventually(jobs_are_done)
    # The ticks send at most one request every 3 s for symbols of unknown standing. After a failed request, its symbols
    # are requested in halves. So the refusal of KO may come late.
    await eventually(ko_is_refused, within=90)
    service.send()
    assert await service.end() == 0
    assert [put["ProtectionEnabled"] for put in agent.put][:2] == [True, False]
    assert SECRET_KEY not in service.output
    assert KEY_ID not in service.output
    errors = [line["message"] for line in service.lines() if line["level"] == "ERROR"]
    assert set(errors) <= {"database: no answer within 3 s"}, "a stalled machine causes this error too"


class Trading(dict[str, str]):
    """Snapshots whose trades have the time of the request."""

    def __getitem__(self, symbol: str) -> str:
        return trade(super().__getitem__(symbol), datetime.now(UTC).isoformat())


@pytest.mark.slow
async def test_a_users_thousand_refused_symbols_delay_no_other_users_prices_and_are_shown_to_the_owner(
    new_service: Callable[..., Service], stack: AsyncExitStack, session: ClientSession
) -> None:
    bad = [f"BAD{number:04}" for number in range(1_000)]
    trading = Trading(dict.fromkeys((symbol for _, _, held in SAMPLES.values() for symbol in held), "5"))
    alpaca = await stack.enter_async_context(Alpaca(trading, invalid=set(bad), refills=True).serving())
    sidecar = await stack.enter_async_context(LeadingSidecar(nothing))
    settings = {
        "PRICE_SOURCE": "alpaca",
        "APCA_API_KEY_ID": KEY_ID,
        "APCA_API_SECRET_KEY": SECRET_KEY,
        "ALPACA_DATA_URL": alpaca.url,
        "TRACKER_INTERVAL": "1",
    }
    service = await stack.enter_async_context(new_service("one", sidecar.url, **settings))

    async def live(portfolio: object) -> dict[str, Any]:
        async with session.get(f"{service.url}/portfolios/{portfolio}/live") as response:
            return await response.json() if response.status == 200 else {}

    async def priced() -> bool:
        return (await live(PORTFOLIO)).get("priced_fraction") == "1.0000"

    await eventually(priced, within=LIMIT)
    other = "44444444-4444-4444-8444-444444444444"
    entries = [{"symbol": symbol, "quantity": "1", "valid_from": "2026-01-01"} for symbol in bad]
    async with session.put(f"{service.url}/portfolios/{other}/positions", json=entries) as response:
        assert response.status == 200, await response.text()

    async def with_unpriced_symbols() -> dict[str, Any] | None:
        value = await live(other)
        return value if value.get("unpriced_count") == 1_000 else None

    value = await eventually(with_unpriced_symbols, within=LIMIT)
    assert value["unpriced_symbols"] == bad[:20]
    assert value["priced_fraction"] == "0.0010"
    seen: dict[str, bool] = {}
    async with session.get(f"{service.url}/portfolios/{PORTFOLIO}/stream") as stream:
        async with asyncio.timeout(LIMIT):
            while len(seen) < 10:
                line = (await stream.content.readline()).decode()
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    seen[event["as_of"]] = event["stale"]
                    assert (event["unpriced_symbols"], event["unpriced_count"]) == ([], 0)
    assert not any(seen.values())
    async with session.get(f"{service.url}/portfolios/{other}/stream") as stream:
        async with asyncio.timeout(LIMIT):
            while not (line := (await stream.content.readline()).decode()).startswith("data: "):
                pass
    event = json.loads(line.removeprefix("data: "))
    assert (event["unpriced_symbols"], event["unpriced_count"]) == (bad[:20], 1_000)
