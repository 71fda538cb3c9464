"""Prices from Alpaca's market data: snapshots for the latest, daily bars for the closes.

Every plan may read the `iex` feed: one exchange's trades, live. The consolidated feed, `sip`, is open to every plan
once it is 15 minutes old; so closes are the consolidated ones as soon as they are official, and provisional until then.
"""

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from service.market import NEW_YORK, Calendar
from service.prices import Price, PricesUnavailable
from service.prices.alpaca_client import CONNECTIONS, AccessRefused, AlpacaClient, Budget, QuestionRefused
from service.prices.alpaca_shapes import bars_by_symbol, close_of, latest_price

Feed = Literal["iex", "sip", "delayed_sip"]

BATCH = 500
"""Symbols in one request. Alpaca documents no limit; a URL of this length passes the usual proxies."""
PAGE = 10_000
"""Bars in one answer, over all symbols; the most there may be."""
CLOSES_BUDGET = 50.0
"""Seconds for the closes of a session, all attempts together."""
OFFICIAL_AFTER = timedelta(minutes=16)
"""From the session's close until its daily bars are final, and open to every plan."""
REFUSED_FOR = 3600.0
"""Seconds for which a symbol that Alpaca refused is not asked for again: each costs requests."""
MOST_REFUSED = 20
"""Symbols refused without being named, and without any answer: then it is the question itself that is at fault."""
AHEAD = timedelta(minutes=1)
"""How far a trade's time may lie ahead of our clock."""

SYMBOL = re.compile(r"[!-+\--~]{1,32}")
"""Printable ASCII without blanks and commas: anything else would change the list that it stands in."""
NAMED = re.compile(r"invalid symbol: (\S+)")

logger = logging.getLogger(__name__)

Answer = dict[str, Price]
Question = Callable[[list[str], Budget], Awaitable[Answer]]


class AlpacaPrices:
    """A `PriceSource` on Alpaca's market data.

    A symbol that Alpaca refuses or does not know has no price, and loses nobody else theirs. Of the latest prices those
    that came in within the budget are given; closes are given all or not at all, as they can be asked for again later.

    Args:
        client: asks; closed with this.
        calendar: whose sessions the closes are of.
        feed: of the latest prices.
        budget: seconds for the latest prices, all attempts together; less than a tick.
        now: the wall clock.
        clock: seconds that only ever grow.
    """

    def __init__(
        self,
        client: AlpacaClient,
        calendar: Calendar,
        *,
        feed: Feed,
        budget: float,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._calendar = calendar
        self._feed = feed
        self._budget = budget
        self._now = now
        self._clock = clock
        self._batch = BATCH
        self._refused: dict[str, float] = {}

    async def latest(self, symbols: Collection[str]) -> Answer:
        """Each symbol's last trade, or the last minute's close where there is none."""

        async def ask(batch: list[str], budget: Budget) -> Answer:
            query = {"symbols": ",".join(batch), "feed": self._feed}
            found = await self._client.get("/v2/stocks/snapshots", query, budget)
            prices = ((symbol, latest_price(symbol, found.get(symbol))) for symbol in batch)
            return {symbol: price for symbol, price in prices if price is not None}

        answers = await self._ask_all(symbols, ask, self._client.budget(self._budget))
        if answers.failures:
            if not answers.found:
                raise answers.failures[0]
            failed = len(answers.failures)
            logger.warning("%d of %d requests for prices failed: %s", failed, answers.asked, answers.failures[0])
        now = self._now()
        return {
            symbol: Price(symbol, price.price, min(price.at, now))
            for symbol, price in answers.found.items()
            if price.at <= now + AHEAD
        }

    async def closes(self, symbols: Collection[str], day: date) -> Answer:
        """Each symbol's close of that session, not adjusted for later splits; none before the session is over.

        A symbol is the company's that had it on that day, whatever it is called now, and whoever has taken it over.
        """
        session = self._calendar.session(day)
        now = self._now()
        if session is None or session.close > now:
            return {}
        at = session.close
        official = now >= at + OFFICIAL_AFTER
        query = {
            "timeframe": "1Day",
            "start": _text(datetime(day.year, day.month, day.day, tzinfo=NEW_YORK)),  # the time of the day's bar
            "end": _text(at),
            "asof": day.isoformat(),  # whose symbol it was then: by default it is who has it today that is asked for
            "adjustment": "raw",
            "feed": "sip" if official or self._feed == "sip" else "iex",
            "limit": str(PAGE),
        }

        async def ask(batch: list[str], budget: Budget) -> Answer:
            bars = await self._bars(query | {"symbols": ",".join(batch)}, budget)
            found = ((symbol, close_of(bars.get(symbol, ()), day)) for symbol in batch)
            return {symbol: Price(symbol, close, at) for symbol, close in found if close is not None}

        answers = await self._ask_all(symbols, ask, self._client.budget(CLOSES_BUDGET))
        if answers.failures:
            raise answers.failures[0]
        return answers.found

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _bars(self, query: Mapping[str, str], budget: Budget) -> dict[str, list[object]]:
        """The bars by symbol, of all pages."""
        found: dict[str, list[object]] = {}
        tokens: list[object] = []
        while True:
            page = await self._client.get("/v2/stocks/bars", query, budget)
            bars = bars_by_symbol(page)
            if bars is None:
                raise PricesUnavailable("Alpaca: the answer holds no bars")
            for symbol, some in bars.items():
                found.setdefault(symbol, []).extend(some)
            token = page.get("next_page_token")
            if not token:
                return found
            if not isinstance(token, str) or token in tokens:
                raise PricesUnavailable("Alpaca: the pages have no end")
            tokens.append(token)
            query = {**query, "page_token": token}

    async def _ask_all(self, symbols: Collection[str], ask: Question, budget: Budget) -> "_Answers":
        """Ask for all symbols in batches, a few at a time.

        Raises:
            AccessRefused: to any batch.
        """
        wanted = sorted(s for s in symbols if SYMBOL.fullmatch(s) and self._refused.get(s, 0.0) <= self._clock())
        answers = _Answers(deque(_split(wanted, self._batch)))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONNECTIONS):
                tasks.create_task(self._work_off(answers, ask, budget))
        if answers.access is not None:
            raise answers.access
        if answers.unnamed and not answers.answered:
            answers.failures.insert(0, PricesUnavailable(f"Alpaca: {answers.unnamed[-1][1]}"))
        else:
            answers.refused += [symbol for symbol, _ in answers.unnamed]
        if answers.refused:
            logger.warning("Alpaca refuses %s", ", ".join(sorted(answers.refused)))
            self._refused |= dict.fromkeys(answers.refused, self._clock() + REFUSED_FOR)
        return answers

    async def _work_off(self, answers: "_Answers", ask: Question, budget: Budget) -> None:
        while answers.waiting:
            batch = answers.waiting.popleft()
            answers.asked += 1
            try:
                answers.found |= await ask(batch, budget)
                answers.answered = True
            except QuestionRefused as refusal:
                self._ask_otherwise(answers, batch, refusal)
            except AccessRefused as refusal:
                answers.access = refusal
                answers.waiting.clear()
            except PricesUnavailable as failure:
                answers.failures.append(failure)

    def _ask_otherwise(self, answers: "_Answers", batch: list[str], refusal: QuestionRefused) -> None:
        """Leave the symbol out that the refusal names; else ask for each half, until the one at fault is alone."""
        named = NAMED.search(str(refusal))
        if refusal.status == 400 and named is not None and named[1] in batch:
            answers.refused.append(named[1])
            if rest := [symbol for symbol in batch if symbol != named[1]]:
                answers.waiting.appendleft(rest)
        elif len(batch) > 1:
            half = (len(batch) + 1) // 2
            if refusal.status == 414:
                self._batch = min(self._batch, half)
            answers.waiting.extendleft(_split(batch, half))
        else:
            answers.unnamed.append((batch[0], str(refusal)))
            if not answers.answered and len(answers.unnamed) >= MOST_REFUSED:
                answers.waiting.clear()


@dataclass(slots=True)
class _Answers:
    """What is still to be asked, and what has come back."""

    waiting: deque[list[str]]
    found: Answer = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    unnamed: list[tuple[str, str]] = field(default_factory=list)
    """Symbols that were refused alone, each with Alpaca's words."""
    failures: list[PricesUnavailable] = field(default_factory=list)
    access: AccessRefused | None = None
    asked: int = 0
    answered: bool = False


def _split(symbols: list[str], size: int) -> Iterable[list[str]]:
    return (symbols[start : start + size] for start in range(0, len(symbols), size))


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
