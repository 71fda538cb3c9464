"""Fakes for tests of the work: clock, prices and terms."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from service.prices import Price


class FakeTermOver(Exception):
    """Stand-in for `sidecar.client.TermOver`."""


@dataclass
class Clock:
    """A clock that moves forward only in `sleep`, and records every sleep."""

    time: datetime
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += timedelta(seconds=seconds)


@dataclass
class FakeTerm:
    """A term that ends at a time of the clock, or after a number of checks."""

    token: int = 1
    holder: str = "one"
    name: str = "lease"
    clock: Clock | None = None
    until: datetime | None = None
    checks: int | None = None

    def check(self) -> None:
        if self.checks is not None:
            self.checks -= 1
            if self.checks < 0:
                raise FakeTermOver
        if self.clock is not None and self.until is not None and self.clock.time >= self.until:
            raise FakeTermOver


class ScriptedPrices:
    """Prices from the test's functions. A function may also raise an error, or change something before it answers.

    A latest price has the time of the answer, unless the test's function gives the price another time.
    """

    def __init__(
        self,
        latest: Callable[[], Awaitable[Mapping[str, str | Price]]] | None = None,
        closes: Callable[[date], Awaitable[Mapping[str, str]]] | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._latest = latest
        self._closes = closes
        self._now = now
        self.asked: list[set[str]] = []

    async def latest(self, symbols: Collection[str]) -> dict[str, Price]:
        assert self._latest is not None and self._now is not None
        self.asked.append(set(symbols))
        answer = await self._latest()
        at = self._now()
        return {
            symbol: price if isinstance(price, Price) else Price(symbol, Decimal(price), at)
            for symbol, price in answer.items()
        }

    async def closes(self, symbols: Collection[str], day: date) -> dict[str, Price]:
        assert self._closes is not None
        self.asked.append(set(symbols))
        at = datetime(day.year, day.month, day.day, 21, tzinfo=UTC)
        answer = await self._closes(day)
        return {symbol: Price(symbol, Decimal(answer[symbol]), at) for symbol in symbols if symbol in answer}

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""
