"""The rules for every price source, including the example in docs/price-sources.md."""

import json
import re
import types
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr

from service.market.calendar import NyseCalendar
from service.prices import PriceSource, PricesUnavailable
from service.prices.alpaca import AlpacaPrices
from service.prices.alpaca_client import AlpacaClient, Credentials
from service.prices.simulated import SimulatedPrices
from tests.service.prices.alpaca_server import KEY_ID, SECRET_KEY, Alpaca, bar, trade

DOCUMENT = Path(__file__).parents[3] / "docs" / "price-sources.md"
NOW = datetime(2026, 2, 17, 15, 30, 1, tzinfo=UTC)
FRIDAY, SATURDAY = date(2026, 2, 13), date(2026, 2, 14)
KNOWN = {"AAPL": "191.2350", "KO": "60.1"}


@asynccontextmanager
async def simulated() -> AsyncIterator[PriceSource]:
    yield SimulatedPrices(1, NyseCalendar(), lambda: NOW)


@asynccontextmanager
async def alpaca() -> AsyncIterator[PriceSource]:
    snapshots = {symbol: trade(price) for symbol, price in KNOWN.items()} | {"ZERO": '{"latestTrade":{"p":0}}'}
    bars = {symbol: [bar(price)] for symbol, price in KNOWN.items()} | {"ZERO": [bar("0")]}
    async with Alpaca(snapshots, bars, now=NOW).serving() as server:
        client = AlpacaClient(server.url, Credentials(SecretStr(KEY_ID), SecretStr(SECRET_KEY)))
        yield AlpacaPrices(client, NyseCalendar(), feed="iex", budget=5, now=lambda: NOW)


def sample() -> types.ModuleType:
    """The code in the document, as a module."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert code.count("\n") <= 55, "the document's example is short"
    module = types.ModuleType("sample")
    exec(compile(code, str(DOCUMENT), "exec"), vars(module))
    return module


@asynccontextmanager
async def example_source(*answers: web.Response) -> AsyncIterator[PriceSource]:
    waiting = list(answers)

    async def handle(request: web.Request) -> web.Response:
        if waiting:
            return waiting.pop(0)
        known = {**KNOWN, "ZERO": "0"} if request.query.get("day") != SATURDAY.isoformat() else {}
        entries = {symbol: {"price": price, "at": "2026-02-13T15:30:00Z"} for symbol, price in known.items()}
        return web.Response(text=json.dumps(entries))

    app = web.Application()
    app.router.add_get("/prices", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield sample().HousePrices(f"http://127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()


SOURCES: dict[str, Callable[[], AbstractAsyncContextManager[PriceSource]]] = {
    "simulated": simulated,
    "alpaca": alpaca,
    "the sample": example_source,
}


@pytest.fixture(params=SOURCES)
async def source(request: pytest.FixtureRequest) -> AsyncIterator[PriceSource]:
    async with SOURCES[request.param]() as source:
        yield source
        await source.aclose()


async def test_a_price_is_exact_and_above_zero_and_not_from_the_future(source: PriceSource) -> None:
    for found in (await source.latest(KNOWN), await source.closes(KNOWN, FRIDAY)):
        assert found.keys() == KNOWN.keys()
        for symbol, price in found.items():
            assert price.symbol == symbol
            assert type(price.price) is Decimal
            assert price.price.is_finite()
            assert price.price > 0
            assert price.at <= NOW  # this comparison fails for an instant without a time zone
    if not isinstance(source, SimulatedPrices):
        assert (await source.latest(KNOWN))["AAPL"].price == Decimal("191.2350")


@pytest.mark.parametrize("source", sorted(SOURCES.keys() - {"simulated"}), indirect=True)
async def test_a_symbol_without_a_price_is_absent_from_the_answer(source: PriceSource) -> None:
    """The simulated source is excluded, because it has a price for every symbol."""
    assert (await source.latest(["AAPL", "ZERO", "UNKNOWN"])).keys() == {"AAPL"}
    assert (await source.closes(["AAPL", "ZERO", "UNKNOWN"], FRIDAY)).keys() == {"AAPL"}


async def test_a_day_without_a_session_has_no_closes(source: PriceSource) -> None:
    assert await source.closes(KNOWN, SATURDAY) == {}


async def test_the_answer_for_no_symbols_is_empty(source: PriceSource) -> None:
    assert await source.latest([]) == {}
    assert await source.closes([], FRIDAY) == {}


@pytest.mark.parametrize("status_and_text", [(500, ""), (200, "<html>"), (200, "")])
async def test_the_example_source_raises_prices_unavailable_for_a_bad_answer(status_and_text: tuple[int, str]) -> None:
    status, text = status_and_text
    async with example_source(web.Response(status=status, text=text)) as source:
        with pytest.raises(PricesUnavailable):
            await source.latest(["AAPL"])
        await source.aclose()
