"""Values of portfolios."""

import logging
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.portfolio.formats import PRICE_LIMIT, QUANTITY_LIMIT
from service.portfolio.positions import Block
from service.portfolio.valuation import Mark, Marks, report_overflow, value_block
from tests.service.portfolio.reference import block_of, nothing_held, valued, worth_of, worths

NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)
SYMBOLS = [f"S{number}" for number in range(8)]

CENT_SHARE = Decimal("0.00000001")
quantities = st.one_of(
    st.decimals(-QUANTITY_LIMIT + CENT_SHARE, QUANTITY_LIMIT - CENT_SHARE, places=8),
    st.decimals(-100, 100, places=8),
    st.integers(1, 1000).map(Decimal),
).filter(bool)
prices = st.one_of(
    st.decimals("0.000001", PRICE_LIMIT - Decimal("0.000001"), places=6), st.decimals("0.01", 900, places=2)
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
def test_the_arrays_give_the_values_of_the_decimal_reference(
    held: dict[UUID, tuple[tuple[str, Decimal], ...]], priced: dict[str, Mark]
) -> None:
    """The examples have empty portfolios, short positions, missing prices, and sums of a hundred bits."""
    values = value_block(block_of(held, SYMBOLS), Marks.of(SYMBOLS, priced))
    expected = [worth_of(held[portfolio_id], priced) for portfolio_id in sorted(held, key=lambda p: p.bytes)]
    for given_, right, wide in zip(worths(values), expected, values.overflow, strict=True):
        if wide:
            assert given_.value is None
            assert (given_.priced_fraction, given_.stale) == (right.priced_fraction, right.stale)
        else:
            assert given_ == right


def test_thousands_of_values_equal_the_decimal_reference() -> None:
    """Quantities have eight decimal places, prices have six, and both have realistic sizes."""
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
def test_the_largest_positions_without_overflow_are_exact(sign: int) -> None:
    """The value is slightly less than 792 trillion dollars, and its sum needs 96 bits."""
    held = tuple((name, sign * Decimal("9876543210.12345678")) for name in SYMBOLS)
    priced = {name: mark("10021.987653") for name in SYMBOLS}
    assert valued(held, priced) == worth_of(held, priced)


def test_positions_that_overflow_have_no_value_and_are_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Positions overflow even if long and short ones cancel: the limit is on the sum of the absolute values."""
    large = QUANTITY_LIMIT - 1
    held = {UUID(int=1): (("S0", large), ("S1", -large)), UUID(int=2): (("S0", Decimal(1)),)}
    priced = {"S0": mark("900000000"), "S1": mark("900000000")}
    values = value_block(block_of(held, SYMBOLS), Marks.of(SYMBOLS, priced))
    assert [worth.value for worth in worths(values)] == [None, Decimal(900_000_000)]
    with caplog.at_level(logging.ERROR):
        report_overflow(values.overflowing)
    assert [str(UUID(int=1)) in line for line in caplog.messages] == [True]


def test_portfolios_that_overflow_are_reported_once_and_a_few_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    large = (("S0", QUANTITY_LIMIT - 1),)
    held = {UUID(int=number): large for number in range(1, 9)}
    reported: set[UUID] = set()
    for count in (7, 8, 8):
        block = block_of(dict(list(held.items())[:count]), SYMBOLS)
        values = value_block(block, Marks.of(SYMBOLS, {"S0": mark("900000000")}))
        report_overflow(values.overflowing, reported)
    names = [[number for number in range(1, 9) if str(UUID(int=number)) in line] for line in caplog.messages]
    assert names == [[1, 2, 3, 4, 5], [8]]
    assert [line.split()[0] for line in caplog.messages] == ["7", "1"]


def test_an_empty_portfolio_between_others_gets_no_value_from_them() -> None:
    held = {
        UUID(int=1): (),
        UUID(int=2): (("A", Decimal(1)),),
        UUID(int=3): (),
        UUID(int=4): (("A", Decimal(2)),),
        UUID(int=5): (),
    }
    values = value_block(block_of(held, ["A"]), Marks.of(["A"], {"A": mark("3")}))
    assert [worth.value for worth in worths(values)] == [0, 3, 0, 6, 0]
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


def test_an_empty_portfolio_is_worth_zero_and_has_priced_fraction_one() -> None:
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
