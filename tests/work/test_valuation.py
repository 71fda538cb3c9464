"""What a portfolio is worth."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.prices import Price
from service.records import Quote
from service.valuation import HIGHEST_PRICE, Mark, quoted, usable, value_of

NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)
MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)


def mark(price: str, *, stale: bool = False, at: datetime = NOON, opened: str | None = None) -> Mark:
    return Mark(Decimal(price), at, stale, Decimal(opened or price))


def test_a_value_is_the_exact_sum() -> None:
    value = value_of((("A", Decimal("0.1")), ("B", Decimal(3))), {"A": mark("0.2"), "B": mark("10.01", opened="9")})
    assert (value.value, value.day_open, value.priced_fraction) == (Decimal("30.05"), Decimal("27.02"), Decimal(1))


def test_a_position_without_a_price_lowers_the_priced_fraction() -> None:
    value = value_of((("A", Decimal(1)), ("B", Decimal(1)), ("C", Decimal(1))), {"A": mark("5")})
    assert (value.value, value.priced_fraction) == (Decimal(5), Decimal("0.3333"))


def test_a_portfolio_without_any_price_has_no_value() -> None:
    value = value_of((("A", Decimal(1)),), {})
    assert (value.value, value.day_open, value.priced_fraction) == (None, None, Decimal(0))


def test_an_empty_portfolio_is_worth_nothing_and_wholly_priced() -> None:
    value = value_of((), {})
    assert (value.value, value.priced_fraction, value.stale) == (Decimal(0), Decimal(1), False)


def test_one_stale_price_makes_the_value_stale_and_the_oldest_gives_the_age() -> None:
    old = NOON - timedelta(hours=1)
    value = value_of((("A", Decimal(1)), ("B", Decimal(1))), {"A": mark("1"), "B": mark("1", stale=True, at=old)})
    assert (value.stale, value.oldest_price_at) == (True, old)


def test_the_fraction_is_one_only_when_everything_has_a_price() -> None:
    many = tuple((f"S{n}", Decimal(1)) for n in range(30_000))
    marks = {symbol: mark("1") for symbol, _ in many[1:]}
    assert value_of(many, marks).priced_fraction == Decimal("0.9999")
    assert value_of(many, {"S0": mark("1")}).priced_fraction == Decimal("0.0001")


@pytest.mark.parametrize("price", ["0", "-1", "NaN", "sNaN", "Infinity", "0.0000001", str(HIGHEST_PRICE)])
def test_what_cannot_be_a_price_is_a_missing_price(price: str) -> None:
    assert usable([Price("A", Decimal(price), NOON)]) == {}


@given(
    st.lists(
        st.tuples(st.decimals(-(10**15), 10**15, places=8), st.decimals("0.000001", HIGHEST_PRICE - 1, places=6)),
        min_size=1,
        max_size=20,
    )
)
def test_no_quantity_and_price_that_the_database_holds_makes_a_wrong_value(
    positions: list[tuple[Decimal, Decimal]],
) -> None:
    holdings = tuple((str(n), quantity) for n, (quantity, _) in enumerate(positions))
    value = value_of(holdings, {str(n): mark(str(price)) for n, (_, price) in enumerate(positions)}).value
    exact = sum(Fraction(quantity) * Fraction(price) for quantity, price in positions)
    assert value is not None
    assert abs(Fraction(value) - exact) <= Fraction(1, 20_000)


def test_the_open_lasts_for_the_session_and_no_longer() -> None:
    first = quoted(Price("A", Decimal(10), NOON), MONDAY, None)
    second = quoted(Price("A", Decimal(11), NOON), MONDAY, first)
    third = quoted(Price("A", Decimal(12), NOON), TUESDAY, second)
    assert [quote.open for quote in (first, second, third)] == [10, 10, 12]
    assert third == Quote("A", Decimal(12), NOON, TUESDAY, Decimal(12))
