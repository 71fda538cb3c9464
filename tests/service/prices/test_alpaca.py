"""Alpaca's prices from a server that answers and refuses like Alpaca."""

import asyncio
import itertools
import logging
import re
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from pydantic import SecretStr

from service.market.calendar import NyseCalendar
from service.prices import Price, PricesUnavailable
from service.prices.alpaca import AlpacaPrices, Feed
from service.prices.alpaca_client import MAX_ANSWER, AlpacaClient, Credentials
from tests.service.prices.alpaca_server import (
    KEY_ID,
    SECRET_KEY,
    Alpaca,
    Behaviour,
    answering,
    bar,
    break_off,
    hang,
    trade,
)

FRIDAY = date(2026, 2, 13)
CLOSE = datetime(2026, 2, 13, 21, 0, tzinfo=UTC)
CREDENTIALS = Credentials(SecretStr(KEY_ID), SecretStr(SECRET_KEY))


@pytest.fixture
async def alpaca() -> AsyncIterator[Alpaca]:
    async with Alpaca().serving() as alpaca:
        yield alpaca


class Sleeps:
    """Sleeps that end at once and move a clock. Each sleep moves it by `early` seconds too little."""

    def __init__(self, early: float = 0.0) -> None:
        self.slept: list[float] = []
        self._early = early

    async def sleep(self, seconds: float) -> None:
        self.slept.append(max(0.0, seconds - self._early))

    def clock(self) -> float:
        return time.monotonic() + sum(self.slept)


@asynccontextmanager
async def source(
    alpaca: Alpaca,
    *,
    feed: Feed = "iex",
    budget: float = 20.0,
    credentials: Credentials = CREDENTIALS,
    now: datetime | None = None,
    sleeps: Sleeps | None = None,
    known: Collection[str] = (),
) -> AsyncIterator[AlpacaPrices]:
    sleeps = sleeps or Sleeps()
    if now is not None:
        alpaca.now = now
    client = AlpacaClient(
        alpaca.url, credentials, clock=sleeps.clock, sleep=sleeps.sleep, uniform=lambda low, high: high
    )
    prices = AlpacaPrices(client, NyseCalendar(), feed=feed, budget=budget, now=lambda: alpaca.now, clock=sleeps.clock)
    prices.standing.remember((), known)
    try:
        yield prices
    finally:
        await prices.aclose()


async def test_the_latest_price_is_the_last_trade_exact_to_the_digit_and_timed_by_the_trade(alpaca: Alpaca) -> None:
    alpaca.snapshots = {"AAPL": trade("191.2350"), "BRK.B": trade("0.1"), "KO": trade("60")}
    async with source(alpaca) as prices:
        found = await prices.latest(["AAPL", "BRK.B", "KO", "NO_CROWD"])
    at = datetime(2026, 2, 13, 15, 30, 0, 123456, tzinfo=UTC)
    assert found == {
        "AAPL": Price("AAPL", Decimal("191.2350"), at),
        "BRK.B": Price("BRK.B", Decimal("0.1"), at),
        "KO": Price("KO", Decimal(60), at),
    }
    assert alpaca.asked == [{"symbols": "AAPL,BRK.B,KO,NO_CROWD", "feed": "iex"}]


def snapshot(**parts: tuple[str, str]) -> str:
    """A snapshot with a price and a time for each part."""
    name = {"latestTrade": "p"}
    texts = (f'"{part}":{{"t":"{at}","{name.get(part, "c")}":{price}}}' for part, (price, at) in parts.items())
    return "{" + ",".join(texts) + "}"


@pytest.mark.parametrize(
    ("parts", "price"),
    [
        ({"latestTrade": ("1", "2026-02-13T15:00:00Z"), "minuteBar": ("2", "2026-02-13T15:29:00Z")}, "2"),
        ({"latestTrade": ("1", "2026-02-13T15:29:30Z"), "minuteBar": ("2", "2026-02-13T15:29:00Z")}, "1"),
        ({"latestTrade": ("1", "2026-02-13T15:29:00Z"), "minuteBar": ("2", "2026-02-13T15:29:00Z")}, "1"),
        ({"latestTrade": ("1", "2026-02-12T20:59:00Z"), "dailyBar": ("2", "2026-02-13T05:00:00Z")}, "2"),
        ({"minuteBar": ("1", "2026-02-12T20:59:00Z"), "dailyBar": ("2", "2026-02-13T05:00:00Z")}, "2"),
        ({"latestTrade": ("1", "2026-02-11T20:59:00Z"), "prevDailyBar": ("2", "2026-02-12T05:00:00Z")}, "2"),
        ({"latestTrade": ("1", "2026-02-13T15:00:00+00:00"), "minuteBar": ("2", "2026-02-13T10:29:00-05:00")}, "2"),
        ({"latestTrade": ("1", "2026-02-14T15:00:00Z"), "minuteBar": ("2", "2026-02-13T15:29:00Z")}, "2"),
        ({"latestTrade": ("0", "2026-02-13T15:29:30Z"), "minuteBar": ("2", "2026-02-13T15:29:00Z")}, "2"),
    ],
    ids=[
        "older trade",
        "newer trade",
        "same instant",
        "trade of yesterday",
        "minute of yesterday",
        "trade of two days ago",
        "other zone",
        "trade from the future",
        "invalid trade",
    ],
)
async def test_the_newest_price_of_a_snapshot_wins_by_its_own_time(
    parts: dict[str, tuple[str, str]], price: str, alpaca: Alpaca
) -> None:
    alpaca.snapshots = {"A": snapshot(**parts)}
    async with source(alpaca) as prices:
        found = (await prices.latest(["A"]))["A"]
    assert found.price == Decimal(price)
    made = {value: datetime.fromisoformat(at) for value, at in parts.values()}
    assert found.at == made[price]


async def test_a_symbol_without_a_trade_is_priced_by_its_last_minute(alpaca: Alpaca) -> None:
    minute = '{"t":"2026-02-13T15:29:00Z","o":7,"h":7,"l":7,"c":7.25,"v":1,"n":1,"vw":7}'
    alpaca.snapshots = {"A": f'{{"minuteBar":{minute}}}', "B": f'{{"latestTrade":null,"minuteBar":{minute}}}'}
    async with source(alpaca) as prices:
        found = await prices.latest(["A", "B"])
    assert {symbol: price.price for symbol, price in found.items()} == dict.fromkeys("AB", Decimal("7.25"))
    assert found["A"].at == datetime(2026, 2, 13, 15, 29, tzinfo=UTC)


NO_PRICES = {
    "zero": trade("0"),
    "zero as a fraction": trade("0.000"),
    "negative": trade("-1.5"),
    "not a number": trade("NaN"),
    "infinite": trade("Infinity"),
    "an exponent of 21 digits": trade("1e999999999999999999999"),
    "text": trade('"191.2"'),
    "true": trade("true"),
    "null": trade("null"),
    "a list": trade("[1]"),
    "no snapshot": "null",
    "an empty one": "{}",
    "a snapshot of the wrong type": "[]",
    "a trade of the wrong type": '{"latestTrade":7}',
    "no time": '{"latestTrade":{"p":7}}',
    "an invalid time": trade("7", "yesterday"),
    "a time without a zone": trade("7", "2026-02-13T15:30:00"),
    "a time out of range": trade("7", "0001-01-01T00:00:00+14:00"),
    "a time that is not set": trade("7", "0001-01-01T00:00:00Z"),
    "a time in the future": trade("7", "2026-02-13T15:33:00Z"),
}


@pytest.mark.parametrize("kind", NO_PRICES)
async def test_an_invalid_price_is_missing_and_affects_no_other_symbol(kind: str, alpaca: Alpaca) -> None:
    without_bars = re.sub("minuteBar|dailyBar|prevDailyBar", "noBar", NO_PRICES[kind])
    alpaca.snapshots = {"A": trade("1"), "BAD": without_bars, "C": trade("3")}
    async with source(alpaca) as prices:
        assert (await prices.latest(["A", "BAD", "C"])).keys() == {"A", "C"}


async def test_a_trade_slightly_ahead_of_our_clock_is_dated_now(alpaca: Alpaca) -> None:
    alpaca.snapshots = {"A": trade("1", "2026-02-13T15:30:01.5Z")}
    async with source(alpaca) as prices:
        assert (await prices.latest(["A"]))["A"].at == alpaca.now


async def test_thousands_of_symbols_are_requested_in_a_few_parallel_batches(alpaca: Alpaca) -> None:
    symbols = [f"S{number}" for number in range(3333)]
    alpaca.snapshots = dict.fromkeys(symbols, trade("5"))
    async with source(alpaca) as prices:
        assert (await prices.latest(symbols)).keys() == set(symbols)
    assert [len(batch) for batch in alpaca.symbols_asked] == [500] * 6 + [333]
    assert 1 < alpaca.most_at_once <= 4


async def test_no_request_is_sent_without_symbols_or_for_malformed_symbols(alpaca: Alpaca) -> None:
    async with source(alpaca) as prices:
        assert await prices.latest([]) == {}
        assert await prices.latest(["A,B", "", "A B", "Ä", "A\n", "A" * 33]) == {}
    assert alpaca.asked == []


async def test_a_symbol_cannot_add_parameters_to_the_request(alpaca: Alpaca) -> None:
    alpaca.snapshots = {"A&feed=sip": trade("5"), "B%2CC": trade("6"), "D#": trade("7")}
    async with source(alpaca) as prices:
        assert (await prices.latest(alpaca.snapshots)).keys() == alpaca.snapshots.keys()
    assert alpaca.asked[0]["feed"] == "iex"


async def test_a_url_that_is_too_long_is_split_and_later_urls_are_shorter(alpaca: Alpaca) -> None:
    symbols = [f"S{number}" for number in range(500)]
    alpaca.snapshots = dict.fromkeys(symbols, trade("5"))
    alpaca.most_symbols = 130
    async with source(alpaca, known=symbols) as prices:
        assert (await prices.latest(symbols)).keys() == set(symbols)
        before = len(alpaca.asked)
        assert (await prices.latest(symbols)).keys() == set(symbols)
    assert before == 7  # one request for 500 symbols, two for 250, four for 125
    assert [len(batch) for batch in alpaca.symbols_asked[before:]] == [125] * 4


async def test_a_refusal_that_no_symbol_causes_is_not_blamed_on_symbols(alpaca: Alpaca) -> None:
    symbols = [f"S{number}" for number in range(400)]
    alpaca.snapshots = dict.fromkeys(symbols, trade("5"))
    alpaca.next = [answering(400, '{"message":"invalid feed"}')] * 1000
    async with source(alpaca, known=symbols) as prices:
        with pytest.raises(PricesUnavailable, match=r"^Alpaca: 400 invalid feed$"):
            await prices.latest(symbols)
        assert len(alpaca.asked) < 100
        alpaca.next.clear()
        assert (await prices.latest(symbols)).keys() == set(symbols)


@pytest.mark.parametrize(
    "failure",
    [answering(500), answering(503, "<html>"), answering(504, '{"message":"upstream"}'), break_off],
    ids=["500", "503", "504", "broken off"],
)
async def test_a_transient_failure_is_retried_with_growing_pauses(
    failure: Behaviour, alpaca: Alpaca, caplog: pytest.LogCaptureFixture
) -> None:
    alpaca.snapshots = {"A": trade("5")}
    alpaca.next = [failure] * 3
    sleeps = Sleeps()
    async with source(alpaca, sleeps=sleeps, known=["A"]) as prices:
        assert (await prices.latest(["A"])).keys() == {"A"}
    assert sleeps.slept == [0.25, 0.5, 1.0]
    assert caplog.records == []


async def test_the_time_limit_ends_every_attempt(alpaca: Alpaca) -> None:
    alpaca.next = [hang] * 100
    began = time.monotonic()
    async with source(alpaca, budget=0.3, known=["A"]) as prices:
        with pytest.raises(PricesUnavailable, match=r"^Alpaca: no answer in \d\.\d s$"):
            await prices.latest(["A"])
    assert time.monotonic() - began < 20


async def test_no_attempt_begins_with_too_little_time_for_an_answer(alpaca: Alpaca) -> None:
    """A timer of uvloop may end the last pause half a millisecond before the budget ends."""
    alpaca.next = [answering(503, '{"message":"upstream is down"}')] * 100
    alpaca.delay = 0.02
    sleeps = Sleeps(early=0.0005)
    async with source(alpaca, budget=8, sleeps=sleeps, known=["A"]) as prices:
        with pytest.raises(PricesUnavailable, match=r"^Alpaca: 503 upstream is down$"):
            await prices.latest(["A"])
    assert len(alpaca.asked) == len(sleeps.slept)


async def test_an_attempt_has_a_time_limit_even_if_the_budget_ends_before_it_begins(alpaca: Alpaca) -> None:
    alpaca.next = [hang]
    seconds = itertools.count(0.0, 0.6)
    client = AlpacaClient(alpaca.url, CREDENTIALS, clock=lambda: next(seconds))
    try:
        async with asyncio.timeout(10):
            with pytest.raises(PricesUnavailable, match=r"^Alpaca: no answer in \d\.\d s$"):
                await client.get("/v2/stocks/snapshots", {"symbols": "A"}, client.budget(1.0))
    finally:
        await client.aclose()


async def test_an_unreachable_server_is_prices_unavailable(alpaca: Alpaca) -> None:
    alpaca.url = "http://127.0.0.1:1"
    async with source(alpaca) as prices:
        with pytest.raises(PricesUnavailable, match=r"^Alpaca: no connection, or a broken one"):
            await prices.latest(["A"])


async def test_the_prices_of_successful_requests_are_returned_if_others_fail(
    alpaca: Alpaca, caplog: pytest.LogCaptureFixture
) -> None:
    symbols = sorted(f"S{number}" for number in range(1000))
    alpaca.snapshots = dict.fromkeys(symbols, trade("5"))
    alpaca.next = [answering(404, '{"message":"gone"}')]
    async with source(alpaca, known=symbols) as prices:
        assert len(await prices.latest(symbols)) == 500
    assert [r.getMessage() for r in caplog.records] == ["1 of 2 requests for prices failed: Alpaca: 404 gone"]


async def test_after_429_nothing_is_sent_before_the_reset_that_the_server_names(alpaca: Alpaca) -> None:
    alpaca.snapshots = {"A": trade("5")}
    alpaca.left = 0
    alpaca.reset_in = 3
    alpaca.clock_ahead = 5000  # a wrong clock, of the server or of this machine, changes nothing
    sleeps = Sleeps()

    async def sleep(seconds: float) -> None:
        sleeps.slept.append(seconds)
        if seconds > 2:
            alpaca.left = 200

    async with source(alpaca, sleeps=sleeps, known=["A"]) as prices:
        prices._client._sleep = sleep
        assert (await prices.latest(["A"])).keys() == {"A"}
    assert len(alpaca.asked) == 2
    assert 3 <= sum(sleeps.slept) <= 5


async def test_a_rate_limit_beyond_the_time_limit_is_reported_without_a_request(alpaca: Alpaca) -> None:
    symbols = [f"S{number}" for number in range(400)]
    alpaca.snapshots = dict.fromkeys(symbols, trade("5"))
    alpaca.left = 1
    async with source(alpaca, known=symbols) as prices:
        assert len(await prices.latest(symbols)) == 400
        with pytest.raises(PricesUnavailable, match=r"^Alpaca: the rate limit is reached, for another (2\d|3[01]) s$"):
            await prices.latest(symbols)
    assert len(alpaca.asked) == 1


async def test_a_429_without_a_reset_time_is_waited_out(alpaca: Alpaca) -> None:
    alpaca.snapshots = {"A": trade("5")}
    alpaca.next = [answering(429, "slow down"), answering(429, headers={"Retry-After": "2"})]
    sleeps = Sleeps()
    async with source(alpaca, sleeps=sleeps, known=["A"]) as prices:
        assert (await prices.latest(["A"])).keys() == {"A"}
    assert 3 <= sum(sleeps.slept) < 6


@pytest.mark.parametrize("date_sent", ["", "yesterday", "Fri, 13 Feb 99999999999999999999 15:30:01 GMT"])
async def test_a_429_with_an_invalid_date_is_waited_out(date_sent: str, alpaca: Alpaca) -> None:
    alpaca.snapshots = {"A": trade("5")}
    alpaca.next = [answering(429, headers={"Date": date_sent, "X-RateLimit-Reset": "1770996605", "Retry-After": "2"})]
    sleeps = Sleeps()
    async with source(alpaca, sleeps=sleeps, known=["A"]) as prices:
        assert (await prices.latest(["A"])).keys() == {"A"}
    assert 2 <= sum(sleeps.slept) < 4


async def test_wrong_keys_are_reported_once_without_the_keys_and_not_tried_again(
    alpaca: Alpaca, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = Credentials(SecretStr("PKWRONG"), SecretStr("hushhush"))
    caplog.set_level(logging.DEBUG)
    async with source(alpaca, credentials=wrong) as prices:
        with pytest.raises(PricesUnavailable) as caught:
            await prices.latest(["A"])
        alpaca.next = [answering(401, '{"message":"no such key PKWRONG / hushhush"}')]
        with pytest.raises(PricesUnavailable, match=r"^Alpaca: 401 no such key \*\*\* / \*\*\*$"):
            await prices.latest(["A"])
    assert str(caught.value) == "Alpaca: 403 forbidden."
    assert len(alpaca.asked) == 2
    assert "hushhush" not in caplog.text + repr(wrong)


async def test_a_plan_without_live_sip_is_reported_with_alpaca_s_message(alpaca: Alpaca) -> None:
    async with source(alpaca, feed="sip") as prices:
        with pytest.raises(PricesUnavailable, match=r"^Alpaca: 403 subscription does not permit querying recent SIP"):
            await prices.latest([f"S{number}" for number in range(5000)])
    assert len(alpaca.asked) <= 8, "the other batches are not requested"


async def test_the_keys_are_not_sent_to_a_redirects_target(alpaca: Alpaca) -> None:
    async with Alpaca(snapshots={"A": trade("5")}).serving() as elsewhere:
        there = {"Location": f"{elsewhere.url}/v2/stocks/snapshots?symbols=A&feed=iex"}
        alpaca.next = [answering(302, headers=there)]
        async with source(alpaca) as prices:
            with pytest.raises(PricesUnavailable, match=r"^Alpaca: 302$"):
                await prices.latest(["A"])
        assert elsewhere.asked == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", "<html>", '{"A":', "[" * 100_000, "\x00", " " * (MAX_ANSWER + 1)],
    ids=["empty", "list", "number", "html", "cut", "deep", "nul", "huge"],
)
async def test_an_answer_that_is_no_json_object_is_prices_unavailable(text: str, alpaca: Alpaca) -> None:
    alpaca.next = [answering(200, text)]
    async with source(alpaca) as prices:
        with pytest.raises(PricesUnavailable, match=r"^Alpaca: the answer is "):
            await prices.latest(["A"])


async def test_closes_are_consolidated_and_unadjusted_and_from_that_days_bar(alpaca: Alpaca) -> None:
    alpaca.bars = {
        "A": [bar("9", "2026-02-12T05:00:00Z"), bar("10.25"), bar("11", "2026-02-17T05:00:00Z")],
        "B": [bar("20.5")],
        "C": [bar("9", "2026-02-12T05:00:00Z")],
        "D": [bar("0")],
    }
    async with source(alpaca, now=CLOSE + timedelta(minutes=16)) as prices:
        found = await prices.closes(["A", "B", "C", "D", "E"], FRIDAY)
    assert found == {"A": Price("A", Decimal("10.25"), CLOSE), "B": Price("B", Decimal("20.5"), CLOSE)}
    assert alpaca.asked == [
        {
            "symbols": "A,B,C,D,E",
            "timeframe": "1Day",
            "start": "2026-02-13T05:00:00Z",
            "end": "2026-02-13T21:00:00Z",
            "asof": "2026-02-13",
            "adjustment": "raw",
            "feed": "sip",
            "limit": "10000",
        }
    ]


async def test_a_close_belongs_to_the_company_that_had_the_symbol_on_that_day(alpaca: Alpaca) -> None:
    alpaca.renamed = {"OLD": (date(2026, 2, 17), "NEW"), "S": (date(2026, 2, 17), "GONE")}
    alpaca.bars = {"NEW": [bar("10")], "GONE": [bar("20")], "S": [bar("999")]}  # 999 belongs to today's S
    async with source(alpaca, now=CLOSE + timedelta(days=10)) as prices:
        found = await prices.closes(["OLD", "S"], FRIDAY)
    assert {symbol: price.price for symbol, price in found.items()} == {"OLD": Decimal(10), "S": Decimal(20)}


async def test_closes_in_summer_are_requested_by_daylight_saving_time(alpaca: Alpaca) -> None:
    alpaca.bars = {"A": [bar("10", "2025-07-01T04:00:00Z")]}
    async with source(alpaca, now=CLOSE) as prices:
        assert (await prices.closes(["A"], date(2025, 7, 1)))["A"].at == datetime(2025, 7, 1, 20, tzinfo=UTC)


@pytest.mark.parametrize(("feed", "asked"), [("iex", "iex"), ("delayed_sip", "iex"), ("sip", "sip")])
async def test_right_after_a_session_its_closes_come_from_a_feed_that_the_plan_may_read(
    feed: Feed, asked: str, alpaca: Alpaca
) -> None:
    alpaca.bars = {"A": [bar("10")]}
    alpaca.recent_sip = feed == "sip"
    async with source(alpaca, feed=feed, now=CLOSE) as prices:
        assert (await prices.closes(["A"], FRIDAY)).keys() == {"A"}
    assert alpaca.asked[0]["feed"] == asked


async def test_there_are_no_closes_before_the_close_or_for_a_day_without_a_session(alpaca: Alpaca) -> None:
    async with source(alpaca, now=CLOSE - timedelta(seconds=1)) as prices:
        assert await prices.closes(["A"], FRIDAY) == {}
        assert await prices.closes(["A"], FRIDAY + timedelta(days=1)) == {}
    assert alpaca.asked == []


async def test_every_page_of_closes_is_read(alpaca: Alpaca) -> None:
    symbols = [f"S{number:03}" for number in range(23)]
    alpaca.bars = {symbol: [bar("5")] for symbol in symbols}
    alpaca.page = 5
    async with source(alpaca, now=CLOSE + timedelta(days=1)) as prices:
        assert (await prices.closes(symbols, FRIDAY)).keys() == set(symbols)
    assert [query.get("page_token") for query in alpaca.asked] == [None, "5", "10", "15", "20"]


@pytest.mark.parametrize(
    "page",
    ['{"bars":[],"next_page_token":null}', '{"bars":{},"next_page_token":"7"}', '{"bars":{},"next_page_token":7}'],
)
async def test_garbled_or_endless_pages_are_prices_unavailable(page: str, alpaca: Alpaca) -> None:
    alpaca.next = [answering(200, page)] * 50
    async with source(alpaca, now=CLOSE + timedelta(days=1)) as prices:
        with pytest.raises(PricesUnavailable):
            await prices.closes(["A"], FRIDAY)
    assert len(alpaca.asked) <= 2


@pytest.mark.parametrize("page", ["{}", '{"bars":null}', '{"bars":{"A":null,"B":7,"C":[7,null,{}]}}'])
async def test_missing_bars_give_no_closes(page: str, alpaca: Alpaca) -> None:
    alpaca.next = [answering(200, page)]
    async with source(alpaca, now=CLOSE + timedelta(days=1)) as prices:
        assert await prices.closes(["A", "B", "C"], FRIDAY) == {}


async def test_a_bar_without_a_time_is_no_close_and_affects_no_other_symbol(alpaca: Alpaca) -> None:
    """A time that is not set is 0001-01-01T00:00:00Z, which Python cannot convert to New York's time."""
    bars = f'"A":[{bar("1", "0001-01-01T00:00:00Z")}],"B":[{bar("2")}]'
    alpaca.next = [answering(200, f'{{"bars":{{{bars}}},"next_page_token":null}}')]
    async with source(alpaca, now=CLOSE + timedelta(days=1)) as prices:
        assert (await prices.closes(["A", "B"], FRIDAY)).keys() == {"B"}


async def test_closes_are_returned_all_or_none(alpaca: Alpaca) -> None:
    symbols = [f"S{number}" for number in range(700)]
    alpaca.bars = {symbol: [bar("5")] for symbol in symbols}
    alpaca.next = [answering(404, '{"message":"gone"}')]
    async with source(alpaca, now=CLOSE + timedelta(days=1)) as prices:
        with pytest.raises(PricesUnavailable, match=r"^Alpaca: 404 gone$"):
            await prices.closes(symbols, FRIDAY)
        assert (await prices.closes(symbols, FRIDAY)).keys() == set(symbols)
