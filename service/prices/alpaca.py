"""Prices from Alpaca's market data: snapshots for the latest, daily bars for the closes.

Every plan may read the `iex` feed: one exchange's trades, live. The consolidated feed, `sip`, is open to every plan
once it is 15 minutes old; so closes are the consolidated ones as soon as they are official, and provisional until then.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from service.market.calendar import NEW_YORK, Calendar
from service.prices import Price, PricesUnavailable
from service.prices.alpaca_client import AlpacaClient, Budget
from service.prices.alpaca_shapes import bars_by_symbol, close_of, latest_price
from service.prices.batches import Allowance, Answer, Answers, Batches
from service.prices.standing import Standing

Feed = Literal["iex", "sip", "delayed_sip"]

PAGE = 10_000
"""Bars in one answer, over all symbols; the most there may be."""
CLOSES_BUDGET = 50.0
"""Seconds for the closes of a session, all attempts together."""
OFFICIAL_AFTER = timedelta(minutes=16)
"""From the session's close until its daily bars are final, and open to every plan."""
AHEAD = timedelta(minutes=1)
"""How far a trade's time may lie ahead of our clock."""

TRIALS_A_MINUTE = 20.0
"""Requests for symbols of unknown standing: a tenth of the 200 that the basic plan allows."""

logger = logging.getLogger(__name__)


class AlpacaPrices:
    """A `PriceSource` on Alpaca's market data.

    A symbol that Alpaca refuses or does not know has no price, and loses nobody else theirs. Of the latest prices those
    that came in within the budget are given; closes of symbols that had a price before are given all or not at all, as
    they can be asked for again later. A few requests try out the symbols that had none: see `Batches`.

    Args:
        client: asks; closed with this.
        calendar: whose sessions the closes are of.
        feed: of the latest prices.
        budget: seconds for the latest prices, all attempts together; less than a tick.
        now: the wall clock.
        clock: seconds that only ever grow.
        trials_a_minute: requests that may be spent on symbols of unknown standing.
        trials_at_once: how many of them one question may spend.
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
        trials_a_minute: float = TRIALS_A_MINUTE,
        trials_at_once: float = TRIALS_A_MINUTE / 2,
    ) -> None:
        self._client = client
        self._calendar = calendar
        self._feed = feed
        self._budget = budget
        self._now = now
        self.standing = Standing(now)
        self._batches = Batches(client, self.standing, Allowance(trials_a_minute / 60, max(trials_at_once, 1.0), clock))

    async def latest(self, symbols: Collection[str]) -> Answer:
        """The newest price of each symbol's snapshot: of its last trade and its bars, by their own times."""

        async def ask(batch: list[str], budget: Budget, *, once: bool = False) -> Answer:
            query = {"symbols": ",".join(batch), "feed": self._feed}
            found = await self._client.get("/v2/stocks/snapshots", query, budget, once=once)
            now = self._now()
            prices = (latest_price(symbol, found.get(symbol), now + AHEAD) for symbol in batch)
            return {price.symbol: replace(price, at=min(price.at, now)) for price in prices if price is not None}

        answers = await self._batches.ask(symbols, ask, self._budget, all_new=False)
        _raise_unless_answered(answers)
        if answers.failures:
            failed = len(answers.failures)
            logger.warning("%d of %d requests for prices failed: %s", failed, answers.asked, answers.failures[0])
        return answers.found

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

        async def ask(batch: list[str], budget: Budget, *, once: bool = False) -> Answer:
            bars = await self._bars(query | {"symbols": ",".join(batch)}, budget, once=once)
            found = ((symbol, close_of(bars.get(symbol, ()), day)) for symbol in batch)
            return {symbol: Price(symbol, close, at) for symbol, close in found if close is not None}

        answers = await self._batches.ask(symbols, ask, CLOSES_BUDGET, all_new=True)
        if answers.failures:
            raise answers.failures[0]
        _raise_unless_answered(answers)
        if answers.queue:
            logger.info("closes of %s: %d symbols of unknown standing are not asked for yet", day, len(answers.queue))
        return answers.found

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _bars(self, query: Mapping[str, str], budget: Budget, *, once: bool) -> dict[str, list[object]]:
        """The bars by symbol, of all pages."""
        found: dict[str, list[object]] = {}
        tokens: list[object] = []
        while True:
            page = await self._client.get("/v2/stocks/bars", query, budget, once=once)
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


def _raise_unless_answered(answers: Answers) -> None:
    failures = answers.failures + answers.doubtful
    if failures and not answers.answered:
        raise failures[0]


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
