"""Simulated prices that change like real ones: a pure function of the seed, the symbol and the time.

Every task of a fleet, and every run of a test, gets the same price for the same second. Only integers are used, so the
results do not depend on the processor or the C library.
"""

import asyncio
from collections.abc import Callable, Collection
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import blake2b

from service.market.calendar import Calendar
from service.prices import Price

MILLION = 1_000_000

WAVES = ((2_592_000, 200_000), (86_400, 30_000), (3_600, 10_000), (60, 3_000), (4, 1_000))
"""Waves of a price: period in seconds and amplitude in millionths. The sum of the amplitudes is far below 1."""

MIN_MEAN, MAX_MEAN = 500, 50_000
"""Bounds of a symbol's mean price, in cents."""


class SimulatedPrices:
    """A `PriceSource` with made-up prices. Every symbol has a price in whole cents, above zero.

    Prices change each second of a session. While the market is closed they stay at the last close.
    """

    def __init__(self, seed: int, calendar: Calendar, now: Callable[[], datetime]) -> None:
        self._seed = seed
        self._calendar = calendar
        self._now = now

    async def latest(self, symbols: Collection[str]) -> dict[str, Price]:
        """The price of each symbol at this second, or at the last close."""
        now = self._now()
        instant = now if self._calendar.current(now) is not None else self._calendar.last_closed(now).close
        return await self._prices(symbols, instant)

    async def closes(self, symbols: Collection[str], day: date) -> dict[str, Price]:
        """The price of each symbol at that day's close; none if there was no session or it is not over."""
        session = self._calendar.session(day)
        if session is None or session.close > self._now():
            return {}
        return await self._prices(symbols, session.close)

    async def aclose(self) -> None:
        """Do nothing: no connection is open."""

    async def _prices(self, symbols: Collection[str], instant: datetime) -> dict[str, Price]:
        second = int(instant.timestamp())
        at = datetime.fromtimestamp(second, UTC)

        def work() -> dict[str, Price]:
            return {symbol: Price(symbol, Decimal(self._cents(symbol, second)).scaleb(-2), at) for symbol in symbols}

        return await asyncio.to_thread(work)  # thousands of symbols take a tenth of a second

    def _cents(self, symbol: str, second: int) -> int:
        mean = MIN_MEAN + _draw(f"{self._seed}/{symbol}", MAX_MEAN - MIN_MEAN)
        factor = MILLION + sum(_wave(f"{self._seed}/{symbol}/{period}", second, period, most) for period, most in WAVES)
        return mean * factor // MILLION


def _wave(name: str, second: int, period: int, most: int) -> int:
    """The wave at that second, from `-most` to `most`: linear between heights that are drawn once a period."""
    step, part = divmod(second, period)
    here, there = (_draw(f"{name}/{at}", 2 * most + 1) - most for at in (step, step + 1))
    return here + (there - here) * part // period


def _draw(name: str, below: int) -> int:
    """An integer from 0 up to `below`, which is excluded. It depends only on the name."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) % below
