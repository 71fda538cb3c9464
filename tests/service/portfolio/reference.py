"""Values of portfolios, computed with `decimal` one position at a time.

They are the reference for `service.portfolio.valuation`, which computes with arrays.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from uuid import UUID

import numpy as np

from service.market.calendar import Session
from service.portfolio.positions import Block, id_array
from service.portfolio.records import LiveValue
from service.portfolio.valuation import MICROSECOND, NEVER, POSTGRES_EPOCH, Mark, Marks, Values, value_block
from service.prices import Price

EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)
PLACES = Decimal("0.0001")

Holdings = Sequence[tuple[str, Decimal]]


@dataclass(frozen=True)
class Worth:
    """One portfolio's value; see `Values`."""

    value: Decimal | None
    day_open: Decimal | None
    priced_fraction: Decimal
    stale: bool
    oldest_price_at: datetime | None


def worth_of(holdings: Holdings, marks: Mapping[str, Mark]) -> Worth:
    if not holdings:
        return Worth(Decimal(0), Decimal(0), Decimal(1), stale=False, oldest_price_at=None)
    priced = [(quantity, marks[symbol]) for symbol, quantity in holdings if symbol in marks]
    if not priced:
        return Worth(None, None, Decimal(0), stale=False, oldest_price_at=None)
    value = day_open = Decimal(0)
    for quantity, mark in priced:
        value = EXACT.fma(quantity, mark.price, value)
        day_open = EXACT.fma(quantity, mark.open, day_open)
    fraction = EXACT.divide(Decimal(len(priced)), Decimal(len(holdings))).quantize(PLACES, context=EXACT)
    if len(priced) < len(holdings):
        fraction = min(max(fraction, PLACES), 1 - PLACES)
    return Worth(
        value.quantize(PLACES, context=EXACT),
        day_open.quantize(PLACES, context=EXACT),
        fraction,
        stale=any(mark.stale for _, mark in priced),
        oldest_price_at=min(mark.at for _, mark in priced),
    )


def last_and_open(answers: Iterable[Price], session: Session) -> tuple[Price, Decimal]:
    """The last price and the session's open, given one or more answers for one symbol in order of arrival.

    An answer counts if it is newer than all answers before it.
    """
    newest: list[Price] = []
    for price in answers:
        if all(price.at > earlier.at for earlier in newest):
            newest.append(price)
    of_the_session = [price.price for price in newest if session.open <= price.at < session.close]
    return newest[-1], (of_the_session or [newest[-1].price])[0]


class ReferenceTicks:
    """The live values of all portfolios through a series of ticks; each tick is computed from all answers so far."""

    def __init__(self) -> None:
        self._answers: dict[str, list[Price]] = {}
        self._reached: dict[UUID, list[Decimal]] = {}
        self._comparable: dict[UUID, object] = {}

    def tick(
        self,
        session: Session,
        as_of: datetime,
        answers: Collection[Price],
        holdings: Mapping[UUID, Holdings],
        token: int,
    ) -> dict[UUID, LiveValue]:
        """The values after a tick, given the source's answer: prices above zero with six decimal places."""
        answered = {price.symbol for price in answers}
        for price in answers:
            self._answers.setdefault(price.symbol, []).append(price)
        marks = {}
        for symbol, answers in self._answers.items():
            last, opened = last_and_open(answers, session)
            stale = symbol not in answered or as_of - last.at > timedelta(minutes=15)
            marks[symbol] = Mark(last.price, last.at, stale, opened)
        return {
            portfolio_id: self._live(portfolio_id, session, as_of, positions, marks, token)
            for portfolio_id, positions in holdings.items()
        }

    def _live(
        self,
        portfolio_id: UUID,
        session: Session,
        as_of: datetime,
        positions: Holdings,
        marks: Mapping[str, Mark],
        token: int,
    ) -> LiveValue:
        """The live value. High and low count from the last change of session, positions or opening prices."""
        worth = worth_of(positions, marks)
        opens = {(symbol, quantity, marks[symbol].open) for symbol, quantity in positions if symbol in marks}
        comparable = session, opens, worth.value is None
        if self._comparable.get(portfolio_id) != comparable:
            self._comparable[portfolio_id], self._reached[portfolio_id] = comparable, []
        if worth.value is not None:
            self._reached[portfolio_id].append(worth.value)
        reached = self._reached[portfolio_id]
        unpriced = sorted(symbol for symbol, _ in positions if symbol not in marks)
        return LiveValue(
            portfolio_id,
            session.date,
            as_of,
            worth.value,
            worth.day_open,
            max(reached, default=None),
            min(reached, default=None),
            worth.priced_fraction,
            worth.stale,
            worth.oldest_price_at,
            token,
            unpriced[:20],
            len(unpriced),
        )


def block_of(holdings: Mapping[UUID, Holdings], symbols: Sequence[str]) -> Block:
    """The portfolios as a block, in the order of their ids."""
    ids = sorted(holdings, key=lambda portfolio_id: portfolio_id.bytes)
    held = [position for portfolio_id in ids for position in holdings[portfolio_id]]
    counts = [len(holdings[portfolio_id]) for portfolio_id in ids]
    return Block(
        id_array(ids),
        np.array([sum(counts[:place]) for place in range(len(counts) + 1)], np.int64),
        np.array([symbols.index(symbol) for symbol, _ in held], np.int32),
        np.array([int(quantity.scaleb(8)) for _, quantity in held], np.int64),
    )


def worths(values: Values) -> list[Worth]:
    """The values as `Worth` objects."""
    return [
        Worth(
            _money(value) if known else None,
            _money(day_open) if known else None,
            _money(fraction),
            bool(stale),
            None if oldest == NEVER else POSTGRES_EPOCH + int(oldest) * MICROSECOND,
        )
        for value, day_open, fraction, known, stale, oldest in zip(
            values.value, values.day_open, values.fraction, values.known, values.stale, values.oldest, strict=True
        )
    ]


def valued(holdings: Holdings, marks: Mapping[str, Mark]) -> Worth:
    """The value of one portfolio, computed by `value_block`."""
    symbols = sorted({symbol for symbol, _ in holdings} | marks.keys())
    return worths(value_block(block_of({UUID(int=1): holdings}, symbols), Marks.of(symbols, marks)))[0]


def nothing_held(portfolio_ids: Iterable[UUID]) -> Values:
    """The values of empty portfolios."""
    return value_block(block_of(dict.fromkeys(portfolio_ids, ()), []), Marks.of([], {}))


async def parts(*values: Values) -> AsyncIterator[Values]:
    """The values of a lane, in parts."""
    for part in values:
        yield part


def _money(units: np.int64) -> Decimal:
    return EXACT.scaleb(Decimal(int(units)), -4)


def worth(portfolio_id: UUID, value: str, day_open: str, oldest: datetime) -> Values:
    """The given values of one portfolio."""
    one = np.ones(1, np.int64)
    units, opened = (np.array([int(Decimal(dollars).scaleb(4))], np.int64) for dollars in (value, day_open))
    return Values(
        id_array([portfolio_id]),
        units,
        opened,
        known=one > 0,
        fraction=one * 10_000,
        stale=one < 0,
        oldest=one * ((oldest - POSTGRES_EPOCH) // MICROSECOND),
        overflow=one < 0,
    )
