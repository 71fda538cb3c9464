"""Prices from Alpaca's market data: snapshots for the latest prices, daily bars for the closes.

Every plan may read the live trades of one exchange, the feed `iex`, and data of the consolidated feed, `sip`, that is
15 minutes old. So closes come from `sip` as soon as they are official. Until then they come from `sip` if ALPACA_FEED
is `sip`, otherwise from `iex`. The job `snapshot` later replaces these early closes.
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

PAGE_SIZE = 10_000
"""Bars in one answer, over all symbols; Alpaca's maximum."""
CLOSES_BUDGET = 50.0
"""Seconds for the closes of a session, all attempts together; less than `CLOSES_TIMEOUT`."""
OFFICIAL_AFTER = timedelta(minutes=16)
"""Time from the session's close until its daily bars are final and every plan may read them."""
MAX_CLOCK_LEAD = timedelta(minutes=1)
"""Maximum lead of a trade's time over our clock."""

TRIALS_PER_MINUTE = 20.0
"""Requests a minute for symbols of unknown standing, on average: a tenth of the basic plan's 200. The largest
burst is the number for the interval of one tick, or for one minute if that is shorter (`service.price_source`)."""

logger = logging.getLogger(__name__)


class AlpacaPrices:
    """A `PriceSource` on Alpaca's market data.

    A symbol that Alpaca refuses or does not know has no price, and does not affect other symbols. `latest` returns the
    prices that arrive within the budget. `closes` raises if a request fails, because the closes can be requested again
    later. A few extra requests try symbols of unknown standing (see `Batches`). The failure of such a request is
    ignored if any other request was answered.

    Args:
        client: sends the requests; closed with the source.
        calendar: the calendar of the closes.
        feed: the feed of the latest prices.
        budget: seconds for the latest prices, all attempts together; less than a tick.
        now: the wall clock.
        clock: monotonic seconds.
        trials_per_minute: requests a minute for symbols of unknown standing.
        trials_at_once: the largest burst of these requests; at least one is allowed.
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
        trials_per_minute: float = TRIALS_PER_MINUTE,
        trials_at_once: float = TRIALS_PER_MINUTE / 2,
    ) -> None:
        self._client = client
        self._calendar = calendar
        self._feed = feed
        self._budget = budget
        self._now = now
        self.standing = Standing(now)
        self._batches = Batches(
            client, self.standing, Allowance(trials_per_minute / 60, max(trials_at_once, 1.0), clock)
        )

    async def latest(self, symbols: Collection[str]) -> Answer:
        """The newest price in each symbol's snapshot, among its last trade and its bars."""

        async def ask(batch: list[str], budget: Budget, *, once: bool = False) -> Answer:
            query = {"symbols": ",".join(batch), "feed": self._feed}
            found = await self._client.get("/v2/stocks/snapshots", query, budget, once=once)
            now = self._now()
            prices = (latest_price(symbol, found.get(symbol), now + MAX_CLOCK_LEAD) for symbol in batch)
            return {price.symbol: replace(price, at=min(price.at, now)) for price in prices if price is not None}

        answers = await self._batches.ask(symbols, ask, self._budget, all_new=False)
        _raise_unless_answered(answers)
        if answers.failures:
            failed = len(answers.failures)
            logger.warning("%d of %d requests for prices failed: %s", failed, answers.requests, answers.failures[0])
        return answers.found

    async def closes(self, symbols: Collection[str], day: date) -> Answer:
        """Each symbol's close of that session, not adjusted for later splits; none before the session is over.

        A symbol stands for the company that had it on that day, even if another company has it now.
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
            "asof": day.isoformat(),  # the company that had the symbol then; the default is today's company
            "adjustment": "raw",
            "feed": "sip" if official or self._feed == "sip" else "iex",
            "limit": str(PAGE_SIZE),
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
        """The bars of all pages, by symbol."""
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
    failures = answers.failures + answers.trial_failures
    if failures and not answers.answered:
        raise failures[0]


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
