"""Symbols that Alpaca refuses or has never priced, and how they affect symbols that it has priced."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from aiohttp import web

from service.market.calendar import NyseCalendar
from service.price_source import price_source
from service.prices import PricesUnavailable
from service.prices.alpaca import AlpacaPrices
from service.prices.batches import MAX_REFUSALS, Allowance
from service.prices.standing import FIRST_REFUSAL, Crowd, Refusal
from service.settings import read_settings
from tests.service.prices.alpaca_server import KEY_ID, SECRET_KEY, Alpaca, answering, bar, error, hang, trade
from tests.service.prices.test_alpaca import CLOSE, FRIDAY, alpaca, source
from tests.support.waiting import eventually

__all__ = ["alpaca"]  # the fixture

GOOD = [f"G{number:03}" for number in range(300)]
BAD = [f"BAD{number:04}" for number in range(5_000)]


def good_with(symbols: list[str]) -> list[str]:
    return sorted([*GOOD, *symbols])


def market(alpaca: Alpaca, *, named: bool = True) -> None:
    """Set up the server: it has prices for the good symbols and refuses the bad ones."""
    alpaca.snapshots = dict.fromkeys(GOOD, trade("5"))
    alpaca.bars = {symbol: [bar("5")] for symbol in GOOD}
    alpaca.invalid = set(BAD)
    alpaca.names_invalid = named


def with_unknown(alpaca: Alpaca, known: list[str]) -> list[list[str]]:
    """The requests that contain a symbol of unknown standing."""
    return [batch for batch in alpaca.symbols_asked if not set(known).issuperset(batch)]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("many", [1_000, 5_000])
async def test_refused_symbols_never_delay_a_symbol_that_had_a_price(many: int, named: bool, alpaca: Alpaca) -> None:
    market(alpaca, named=named)
    async with source(alpaca, known=GOOD) as prices:
        for tick in range(1, 11):
            assert (await prices.latest(good_with(BAD[:many]))).keys() == set(GOOD)
            assert alpaca.symbols_asked[-2:][0] == GOOD, "the known symbols come first, in a batch of their own"
            assert len(with_unknown(alpaca, GOOD)) == tick


async def test_a_tenth_of_a_tick_s_requests_goes_to_symbols_of_unknown_standing(alpaca: Alpaca) -> None:
    known = [f"K{number:05}" for number in range(20_000)]
    alpaca.snapshots = dict.fromkeys(known, trade("5"))
    alpaca.invalid = set(BAD)
    async with source(alpaca, known=known) as prices:
        assert (await prices.latest([*known, *BAD])).keys() == set(known)
    assert len(alpaca.asked) == 40 + 4
    assert len(with_unknown(alpaca, known)) == 4


async def test_short_ticks_leave_nine_tenths_of_the_rate_limit(alpaca: Alpaca) -> None:
    allowance = Allowance(20 / 60, 10, iter([0.0, *[second / 2 for second in range(240)]]).__next__)
    assert sum(allowance.take() for _ in range(240)) == 10 + 39


async def test_long_ticks_allow_no_larger_burst_of_requests_for_closes(alpaca: Alpaca) -> None:
    market(alpaca)
    environment = {
        "DATABASE_URL": "postgresql://app@127.0.0.1/none",
        "AUTH": "off",
        "PRICE_SOURCE": "alpaca",
        "APCA_API_KEY_ID": KEY_ID,
        "APCA_API_SECRET_KEY": SECRET_KEY,
        "ALPACA_DATA_URL": alpaca.url,
        "TRACKER_INTERVAL": "3600",
    }
    alpaca.now = CLOSE + timedelta(days=1)
    prices = price_source(read_settings(environment), NyseCalendar(), lambda: alpaca.now)
    assert isinstance(prices, AlpacaPrices)
    expired = alpaca.now - FIRST_REFUSAL
    prices.standing.remember([Refusal(symbol, 1, expired, alpaca.now) for symbol in BAD[:1_000]], GOOD)
    try:
        assert (await prices.closes(good_with(BAD[:1_000]), FRIDAY)).keys() == set(GOOD)
    finally:
        await prices.aclose()
    assert 20 <= len(with_unknown(alpaca, GOOD)) < 40


@pytest.mark.parametrize("named", [True, False])
async def test_a_users_new_symbol_is_priced_at_once_beside_another_users_thousands(named: bool, alpaca: Alpaca) -> None:
    market(alpaca, named=named)
    alpaca.snapshots["NEW"] = trade("7")
    async with source(alpaca, known=GOOD) as prices:
        prices.standing.set_crowds({symbol: Crowd(5_000, 1) for symbol in BAD} | {"NEW": Crowd(1, 2)})
        assert "NEW" in await prices.latest(good_with([*BAD, "NEW"]))


@pytest.mark.parametrize("named", [True, False])
async def test_the_very_first_tick_prices_portfolios_without_refused_symbols(named: bool, alpaca: Alpaca) -> None:
    market(alpaca, named=named)
    async with source(alpaca) as prices:
        prices.standing.set_crowds({symbol: Crowd(5_000, 1) for symbol in BAD} | dict.fromkeys(GOOD, Crowd(300, 2)))
        assert (await prices.latest(good_with(BAD))).keys() == set(GOOD)


@pytest.mark.parametrize("named", [True, False])
async def test_valid_symbols_of_a_portfolio_with_refused_ones_get_prices(named: bool, alpaca: Alpaca) -> None:
    market(alpaca, named=named)
    wanted = {"BAD0100A", "BAD0900A", "G000"}
    alpaca.snapshots |= dict.fromkeys(wanted, trade("5"))
    found: set[str] = set()
    async with source(alpaca, known=GOOD[1:]) as prices:
        symbols = sorted([*GOOD, *BAD[:20], *BAD[95:105], *BAD[895:905], *wanted])
        for _ in range(200):
            alpaca.left = 200
            prices._batches._allowance = Allowance(1, 1, lambda: 0.0)
            found |= (await prices.latest(symbols)).keys()
    assert found >= wanted


@pytest.mark.parametrize("named", [True, False])
async def test_a_refused_symbol_is_not_requested_before_its_refusal_expires(named: bool, alpaca: Alpaca) -> None:
    market(alpaca, named=named)
    alpaca.snapshots["BAD0000"] = trade("6")
    async with source(alpaca, known=GOOD) as prices:
        await prices.latest(good_with(["BAD0000"]))
        alpaca.asked.clear()
        alpaca.now += FIRST_REFUSAL - timedelta(seconds=1)
        await prices.latest(good_with(["BAD0000"]))
        assert with_unknown(alpaca, GOOD) == []
        alpaca.now += timedelta(seconds=1)
        alpaca.invalid.clear()  # the symbol has been listed since
        assert "BAD0000" in await prices.latest(good_with(["BAD0000"]))
        assert prices.standing.changes() == {"BAD0000": None}


async def test_the_log_names_a_few_refused_symbols_once(alpaca: Alpaca, caplog: pytest.LogCaptureFixture) -> None:
    market(alpaca)
    caplog.set_level(logging.INFO)
    async with source(alpaca, known=BAD[:15]) as prices:
        await prices.latest([*GOOD, *BAD[:15]])
        names = ", ".join(BAD[:10])
        assert f"Alpaca refuses {names}, and 5 more" in caplog.messages
        caplog.clear()
        alpaca.now += FIRST_REFUSAL
        await prices.latest([*GOOD, *BAD[:15]])
        assert caplog.messages == []


async def test_a_refusal_is_logged_even_if_the_caller_leaves_before_the_other_answers(
    alpaca: Alpaca, caplog: pytest.LogCaptureFixture
) -> None:
    market(alpaca)
    async with source(alpaca) as prices:
        alpaca.next = [answering(400, '{"message": "invalid symbol: BAD0000"}'), hang]
        latest = asyncio.create_task(prices.latest(good_with(["BAD0000"])))
        await eventually(lambda: len(alpaca.asked) == 2)
        latest.cancel()
        await asyncio.gather(latest, return_exceptions=True)
        assert latest.cancelled()
        assert prices.standing.refusing(["BAD0000"])
    assert "Alpaca refuses BAD0000" in caplog.messages


@pytest.mark.parametrize("named", [True, False])
async def test_the_refusal_of_a_symbol_that_had_a_price_affects_no_other_symbol(named: bool, alpaca: Alpaca) -> None:
    market(alpaca, named=named)
    symbols = good_with(BAD[:1])
    async with source(alpaca, known=symbols) as prices:
        assert (await prices.latest(symbols)).keys() == set(GOOD)
        alpaca.asked.clear()
        assert (await prices.latest(symbols)).keys() == set(GOOD)
    assert alpaca.symbols_asked == [GOOD]


async def test_a_sudden_refusal_of_many_symbols_does_not_use_up_the_requests(alpaca: Alpaca) -> None:
    market(alpaca)
    others = [f"H{number:03}" for number in range(500)]
    alpaca.snapshots |= dict.fromkeys(others, trade("5"))
    known = [*BAD[:400], *GOOD[:100], *others]  # in alphabetical order, `others` fill a batch of their own
    async with source(alpaca, known=known) as prices:
        assert set(others) <= (await prices.latest(known)).keys()
        assert len(alpaca.asked) <= MAX_REFUSALS + 4
        assert alpaca.symbols_asked[1] == others or alpaca.symbols_asked[0] == others, "the H symbols do not wait"


async def test_requests_for_unknown_symbols_leave_a_quarter_of_the_rate_limit(alpaca: Alpaca) -> None:
    market(alpaca)
    alpaca.left = 49  # of 200, before this request
    async with source(alpaca, known=GOOD) as prices:
        assert (await prices.latest(good_with(BAD))).keys() == set(GOOD)
    assert alpaca.symbols_asked == [GOOD]


@pytest.mark.parametrize(
    "failure",
    [
        hang,
        answering(500),
        answering(404),
        answering(403, '{"message":"your plan does not cover OTC"}'),
        answering(414),
        answering(200, "<html>"),
    ],
    ids=["hangs", "500", "404", "403", "414", "html"],
)
async def test_known_symbols_get_prices_whatever_failure_a_new_symbol_causes(
    failure: Callable[[web.Request], Awaitable[web.StreamResponse]], alpaca: Alpaca
) -> None:
    market(alpaca)
    asked = 0

    async def poisoned(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        if "POISON" in request.query["symbols"]:
            asked += 1
            return await failure(request)
        return web.Response(text=alpaca._snapshots(dict(request.query)), content_type="application/json")

    alpaca.next = [poisoned] * 1_000
    async with source(alpaca, budget=1.0 if failure is hang else 20.0, known=GOOD) as prices, asyncio.timeout(30):
        for _ in range(3):
            assert (await prices.latest(good_with(["POISON"]))).keys() == set(GOOD)
    assert asked <= 3, "each call requests the symbol at most once"


async def test_long_symbols_shorten_only_their_own_requests(alpaca: Alpaca) -> None:
    market(alpaca)
    absurd = [f"{number:03}" + "/" * 29 for number in range(300)]
    async with source(alpaca, known=GOOD) as prices:
        for _ in range(12):
            prices._batches._allowance = Allowance(1, 1, lambda: 0.0)
            assert (await prices.latest(good_with(absurd))).keys() == set(GOOD)
    assert len([batch for batch in alpaca.symbols_asked if batch == GOOD]) == 12
    assert max(len(batch) for batch in with_unknown(alpaca, GOOD)) < 70


async def test_a_slow_batch_is_requested_last(alpaca: Alpaca) -> None:
    known = [f"S{number:04}" for number in range(4_000)]
    alpaca.snapshots = dict.fromkeys(known, trade("5"))

    async def slow(request: web.Request) -> web.StreamResponse:
        if int(request.query["symbols"][1:5]) < 2_000:  # the first four batches
            return await hang(request)
        return web.Response(text=alpaca._snapshots(dict(request.query)), content_type="application/json")

    async with source(alpaca, budget=1.0, known=known) as prices:
        alpaca.next = [answering(404)] * 4
        assert len(await prices.latest(known)) == 2_000
        alpaca.next = [slow] * 100
        found = await prices.latest(known)
    assert found.keys() == set(known[2_000:])


async def test_closes_of_known_symbols_arrive_whatever_other_symbols_are_held(alpaca: Alpaca) -> None:
    market(alpaca)
    async with source(alpaca, now=CLOSE + timedelta(days=1), known=GOOD) as prices:
        for _ in range(3):
            assert (await prices.closes(good_with(BAD), FRIDAY)).keys() == set(GOOD)
    assert len(alpaca.asked) <= 3 + 10 + 3 * 10


async def test_closes_of_all_untried_symbols_are_requested(alpaca: Alpaca) -> None:
    symbols = [f"S{number:05}" for number in range(8_000)]
    alpaca.bars = {symbol: [bar("5")] for symbol in symbols}
    async with source(alpaca, now=CLOSE + timedelta(days=1)) as prices:
        assert (await prices.closes(symbols, FRIDAY)).keys() == set(symbols)
    assert len(alpaca.asked) == 16


async def test_a_failed_symbol_does_not_delay_the_closes_of_a_larger_portfolio(alpaca: Alpaca) -> None:
    symbols = [f"S{number:05}" for number in range(8_000)]
    alpaca.bars = {symbol: [bar("5")] for symbol in ("FAILED", *symbols)}
    async with source(alpaca, now=CLOSE + timedelta(days=1)) as prices:
        prices.standing.set_crowds({symbol: Crowd(8_000, 1) for symbol in symbols} | {"FAILED": Crowd(1, 2)})
        prices.standing.record_failure(["FAILED"])
        prices._batches._allowance = Allowance(1, 1, lambda: 0.0)
        assert (await prices.closes(["FAILED", *symbols], FRIDAY)).keys() == {"FAILED", *symbols}
    assert alpaca.symbols_asked[-1] == ["FAILED"]


async def test_closes_that_an_unknown_symbol_prevented_arrive_at_the_next_attempt(alpaca: Alpaca) -> None:
    market(alpaca)

    async def poisoned(request: web.Request) -> web.StreamResponse:
        if "POISON" in request.query["symbols"]:
            return web.Response(status=404)
        return web.Response(text=alpaca._bars(dict(request.query)), content_type="application/json")

    alpaca.next = [poisoned] * 100
    async with source(alpaca, now=CLOSE + timedelta(days=1), known=GOOD) as prices:
        with pytest.raises(PricesUnavailable):
            await prices.closes(good_with(["POISON"]), FRIDAY)
        assert (await prices.closes(good_with(["POISON"]), FRIDAY)).keys() == set(GOOD)


async def test_two_queries_at_the_same_time_may_find_the_same_symbol_refused(alpaca: Alpaca) -> None:
    market(alpaca)
    symbols = good_with(BAD[:1])
    latest_is_over = asyncio.Event()

    async def refuse_late(_: web.Request) -> web.StreamResponse:
        await latest_is_over.wait()
        return error(400, f"invalid symbol: {BAD[0]}")

    alpaca.next = [refuse_late]
    async with source(alpaca, now=CLOSE + timedelta(days=1), known=symbols) as prices:
        closes = asyncio.create_task(prices.closes(symbols, FRIDAY))
        await eventually(lambda: len(alpaca.asked) == 1)
        assert (await prices.latest(symbols)).keys() == set(GOOD)
        latest_is_over.set()
        assert (await closes).keys() == set(GOOD)


async def test_a_source_does_not_request_a_symbol_that_another_source_saw_refused(alpaca: Alpaca) -> None:
    """Two tasks share refusals in the same way, through the database."""
    market(alpaca)
    async with AsyncExitStack() as stack:
        one: AlpacaPrices = await stack.enter_async_context(source(alpaca, known=GOOD))
        two: AlpacaPrices = await stack.enter_async_context(source(alpaca))
        await one.latest(good_with(BAD[:1]))
        refusals = [refusal for refusal in one.standing.changes().values() if refusal is not None]
        two.standing.remember(refusals, GOOD)
        alpaca.asked.clear()
        await two.latest(good_with(BAD[:1]))
    assert alpaca.symbols_asked == [GOOD]
