"""What a portfolio is worth."""

import logging
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.market.calendar import NyseCalendar
from service.portfolio.formats import MOST_QUANTITY
from service.portfolio.positions import Block
from service.portfolio.records import Quote
from service.portfolio.valuation import (
    HIGHEST_PRICE,
    Mark,
    Marks,
    priced_in,
    quoted,
    report_too_wide,
    usable,
    value_all,
    value_block,
)
from service.prices import Price
from tests.service.portfolio.reference import block_of, last_and_open, nothing_held, valued, worth_of, worths

NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)
MONDAY, TUESDAY = NyseCalendar().sessions(date(2026, 3, 2), date(2026, 3, 3))
MINUTE = timedelta(minutes=1)
SYMBOLS = [f"S{number}" for number in range(8)]

CENT_SHARE = Decimal("0.00000001")
quantities = st.one_of(
    st.decimals(-MOST_QUANTITY + CENT_SHARE, MOST_QUANTITY - CENT_SHARE, places=8),
    st.decimals(-100, 100, places=8),
    st.integers(1, 1000).map(Decimal),
).filter(bool)
prices = st.one_of(
    st.decimals("0.000001", HIGHEST_PRICE - Decimal("0.000001"), places=6), st.decimals("0.01", 900, places=2)
)
marks = st.dictionaries(
    st.sampled_from(SYMBOLS),
    st.builds(
        Mark, prices, st.integers(0, 10**6).map(lambda second: NOON - timedelta(seconds=second)), st.booleans(), prices
    ),
)
holdings = st.dictionaries(
    st.integers(0, 2**128 - 1).map(lambda number: UUID(int=number)),
    st.dictionaries(st.sampled_from(SYMBOLS), quantities).map(lambda held: tuple(held.items())),
    max_size=12,
)


def mark(price: str, *, stale: bool = False, at: datetime = NOON, opened: str | None = None) -> Mark:
    return Mark(Decimal(price), at, stale, Decimal(opened or price))


@given(holdings, marks)
def test_the_arrays_give_what_decimals_give_row_by_row(
    held: dict[UUID, tuple[tuple[str, Decimal], ...]], priced: dict[str, Mark]
) -> None:
    """Empty portfolios, short positions, prices that are missing, sums of a hundred bits."""
    values = value_block(block_of(held, SYMBOLS), Marks.of(SYMBOLS, priced))
    expected = [worth_of(held[portfolio_id], priced) for portfolio_id in sorted(held, key=lambda p: p.bytes)]
    for given_, right, wide in zip(worths(values), expected, values.too_wide, strict=True):
        if wide:
            assert given_.value is None
            assert (given_.priced_fraction, given_.stale) == (right.priced_fraction, right.stale)
        else:
            assert given_ == right


def test_a_hundred_thousand_values_are_what_decimals_give() -> None:
    """Quantities of eight places and prices of six, at the sizes that people have."""
    random = np.random.default_rng(7)
    portfolios, symbols = 2_000, 50
    names = [f"S{number}" for number in range(symbols)]
    priced = {name: mark(str(Decimal(int(random.integers(1, 10**9))).scaleb(-6))) for name in names[:45]}
    held = {
        UUID(int=int(n) << 64 | int(n)): tuple(
            (names[place], Decimal(int(random.integers(1, 10**13))).scaleb(-8))
            for place in random.choice(symbols, size=int(random.integers(0, 40)), replace=False)
        )
        for n in range(portfolios)
    }
    values = worths(value_block(block_of(held, names), Marks.of(names, priced)))
    assert values == [worth_of(positions, priced) for positions in held.values()]


def test_a_half_is_rounded_to_even() -> None:
    for quantity, value in (("0.5", "0"), ("1.5", "0.0002"), ("2.5", "0.0002"), ("-0.5", "0"), ("-1.5", "-0.0002")):
        assert valued((("A", Decimal(quantity)),), {"A": mark("0.0001")}).value == Decimal(value)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_positions_that_are_not_too_wide_are_exact(sign: int) -> None:
    """792 trillion dollars and a little, in a sum that needs 96 bits."""
    held = tuple((name, sign * Decimal("9876543210.12345678")) for name in SYMBOLS)
    priced = {name: mark("10021.987653") for name in SYMBOLS}
    assert valued(held, priced) == worth_of(held, priced)


def test_positions_too_wide_to_compute_exactly_have_no_value_and_are_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Even if long and short cancel: it is the terms that are too wide."""
    large = MOST_QUANTITY - 1
    held = {UUID(int=1): (("S0", large), ("S1", -large)), UUID(int=2): (("S0", Decimal(1)),)}
    priced = {"S0": mark("900000000"), "S1": mark("900000000")}
    values = value_block(block_of(held, SYMBOLS), Marks.of(SYMBOLS, priced))
    assert [worth.value for worth in worths(values)] == [None, Decimal(900_000_000)]
    with caplog.at_level(logging.ERROR):
        report_too_wide(values)
    assert [str(UUID(int=1)) in line for line in caplog.messages] == [True]


def test_portfolios_too_wide_are_reported_once_each_a_few_of_them_by_name(caplog: pytest.LogCaptureFixture) -> None:
    large = (("S0", MOST_QUANTITY - 1),)
    held = {UUID(int=number): large for number in range(1, 9)}
    told: set[UUID] = set()
    for count in (7, 8, 8):
        block = block_of(dict(list(held.items())[:count]), SYMBOLS)
        report_too_wide(value_block(block, Marks.of(SYMBOLS, {"S0": mark("900000000")})), told)
    names = [[number for number in range(1, 9) if str(UUID(int=number)) in line] for line in caplog.messages]
    assert names == [[1, 2, 3, 4, 5], [8]]
    assert [line.split()[0] for line in caplog.messages] == ["7", "1"]


def test_an_empty_portfolio_between_others_has_nothing_of_its_neighbours() -> None:
    held = {
        UUID(int=1): (),
        UUID(int=2): (("A", Decimal(1)),),
        UUID(int=3): (),
        UUID(int=4): (("A", Decimal(2)),),
        UUID(int=5): (),
    }
    values = value_block(block_of(held, ["A"]), Marks.of(["A"], {"A": mark("3")}))
    assert [worth.value for worth in worths(values)] == [0, 3, 0, 6, 0]
    assert len(value_all([], Marks.of([], {}))) == 0
    assert len(value_block(Block.empty(), Marks.of([], {}))) == 0


def test_a_value_is_the_exact_sum() -> None:
    value = valued((("A", Decimal("0.1")), ("B", Decimal(3))), {"A": mark("0.2"), "B": mark("10.01", opened="9")})
    assert (value.value, value.day_open, value.priced_fraction) == (Decimal("30.05"), Decimal("27.02"), Decimal(1))


def test_a_position_without_a_price_lowers_the_priced_fraction() -> None:
    value = valued((("A", Decimal(1)), ("B", Decimal(1)), ("C", Decimal(1))), {"A": mark("5")})
    assert (value.value, value.priced_fraction) == (Decimal(5), Decimal("0.3333"))


def test_a_portfolio_without_any_price_has_no_value() -> None:
    value = valued((("A", Decimal(1)),), {})
    assert (value.value, value.day_open, value.priced_fraction) == (None, None, Decimal(0))


def test_an_empty_portfolio_is_worth_nothing_and_wholly_priced() -> None:
    (value,) = worths(nothing_held([UUID(int=1)]))
    assert (value.value, value.priced_fraction, value.stale) == (Decimal(0), Decimal(1), False)


def test_one_stale_price_makes_the_value_stale_and_the_oldest_gives_the_age() -> None:
    old = NOON - timedelta(hours=1)
    value = valued((("A", Decimal(1)), ("B", Decimal(1))), {"A": mark("1"), "B": mark("1", stale=True, at=old)})
    assert (value.stale, value.oldest_price_at) == (True, old)


def test_the_fraction_is_one_only_when_everything_has_a_price() -> None:
    many = 30_000
    block = Block(
        np.array([bytes(16)], "S16"), np.array([0, many]), np.arange(many, dtype=np.int32), np.ones(many, np.int64)
    )
    one = Marks.of([str(n) for n in range(many)], {"0": mark("1")})
    all_but_one = Marks.of([str(n) for n in range(many)], {str(n): mark("1") for n in range(1, many)})
    assert value_block(block, one).fraction == [1]
    assert value_block(block, all_but_one).fraction == [9999]


@pytest.mark.parametrize("price", ["0", "-1", "NaN", "sNaN", "Infinity", "0.0000001", str(HIGHEST_PRICE)])
def test_what_cannot_be_a_price_is_a_missing_price(price: str) -> None:
    assert usable([Price("A", Decimal(price), NOON)]) == {}


def test_a_price_that_rounds_to_the_first_that_is_none_is_none() -> None:
    assert usable([Price("A", HIGHEST_PRICE - Decimal("0.0000001"), NOON)]) == {}


def test_of_two_prices_of_one_symbol_the_newer_one_is_taken() -> None:
    old, new = Price("A", Decimal(1), NOON - MINUTE), Price("A", Decimal(2), NOON)
    for both in ([old, new], [new, old]):
        assert usable(both) == {"A": new}


def test_the_open_lasts_for_the_session_and_no_longer() -> None:
    tuesday_noon = NOON + timedelta(days=1)
    first = quoted(Price("A", Decimal(10), NOON), MONDAY, None, NOON)
    second = quoted(Price("A", Decimal(11), NOON + MINUTE), MONDAY, first, NOON + MINUTE)
    third = quoted(Price("A", Decimal(12), tuesday_noon), TUESDAY, second, tuesday_noon)
    assert [quote.open for quote in (first, second, third)] == [10, 10, 12]
    assert third == Quote("A", Decimal(12), tuesday_noon, TUESDAY.date, Decimal(12))


def test_a_price_from_before_the_session_is_not_its_open_and_one_made_as_it_opens_is() -> None:
    """The first answers of a day are the trades of the day before."""
    opens = TUESDAY.open
    early = quoted(Price("A", Decimal(10), opens - timedelta.resolution), TUESDAY, None, opens)
    assert not priced_in(early, TUESDAY)
    first = quoted(Price("A", Decimal(11), opens), TUESDAY, early, opens + MINUTE)
    assert priced_in(first, TUESDAY)
    later = quoted(Price("A", Decimal(12), opens + MINUTE), TUESDAY, first, opens + MINUTE)
    assert [first.open, later.open] == [11, 11]


def test_a_price_does_not_go_back_in_time_nor_change_at_the_same_instant() -> None:
    kept = quoted(Price("A", Decimal(10), NOON), MONDAY, None, NOON + MINUTE)
    for at in (NOON, NOON - MINUTE, MONDAY.open - MINUTE):
        assert quoted(Price("A", Decimal(11), at), MONDAY, kept, NOON + MINUTE) is kept


def test_a_quote_from_the_future_gives_way() -> None:
    """Or a leader whose clock went an hour ahead would hold the price for an hour."""
    ahead = quoted(Price("A", Decimal(10), NOON + 60 * MINUTE), MONDAY, None, NOON + 60 * MINUTE)
    assert quoted(Price("A", Decimal(11), NOON), MONDAY, ahead, NOON).price == 11


answers = st.lists(
    st.tuples(prices, st.integers(-30, 30)).map(lambda made: Price("A", made[0], TUESDAY.open + made[1] * MINUTE)),
    max_size=8,
)


@given(answers)
def test_whatever_order_prices_come_in_the_newest_counts_and_the_open_is_the_first_of_the_session(
    told: Sequence[Price],
) -> None:
    quote: Quote | None = None
    for number, price in enumerate(told, start=1):
        quote = quoted(price, TUESDAY, quote, TUESDAY.open + 60 * MINUTE)
        last, opened = last_and_open(told[:number], TUESDAY)
        assert (quote.price, quote.at) == (last.price, last.at)
        assert (quote.open if priced_in(quote, TUESDAY) else quote.price) == opened
