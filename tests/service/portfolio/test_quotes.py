"""Quotes: which prices are valid, and which price replaces a known one."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.market.calendar import NyseCalendar
from service.portfolio.formats import PRICE_LIMIT
from service.portfolio.quotes import priced_in, updated_quote, valid_prices
from service.portfolio.records import Quote
from service.prices import Price
from tests.service.portfolio.reference import last_and_open

NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)
MONDAY, TUESDAY = NyseCalendar().sessions(date(2026, 3, 2), date(2026, 3, 3))
MINUTE = timedelta(minutes=1)
prices = st.one_of(
    st.decimals("0.000001", PRICE_LIMIT - Decimal("0.000001"), places=6), st.decimals("0.01", 900, places=2)
)


@pytest.mark.parametrize("price", ["0", "-1", "NaN", "sNaN", "Infinity", "0.0000001", str(PRICE_LIMIT)])
def test_an_invalid_price_is_a_missing_price(price: str) -> None:
    assert valid_prices([Price("A", Decimal(price), NOON)]) == {}


def test_a_price_that_rounds_to_the_limit_is_a_missing_price() -> None:
    assert valid_prices([Price("A", PRICE_LIMIT - Decimal("0.0000001"), NOON)]) == {}


def test_the_newer_of_two_prices_of_a_symbol_counts() -> None:
    old, new = Price("A", Decimal(1), NOON - MINUTE), Price("A", Decimal(2), NOON)
    for both in ([old, new], [new, old]):
        assert valid_prices(both) == {"A": new}


def test_the_open_lasts_for_the_session_and_no_longer() -> None:
    tuesday_noon = NOON + timedelta(days=1)
    first = updated_quote(Price("A", Decimal(10), NOON), MONDAY, None, NOON)
    second = updated_quote(Price("A", Decimal(11), NOON + MINUTE), MONDAY, first, NOON + MINUTE)
    third = updated_quote(Price("A", Decimal(12), tuesday_noon), TUESDAY, second, tuesday_noon)
    assert [quote.open for quote in (first, second, third)] == [10, 10, 12]
    assert third == Quote("A", Decimal(12), tuesday_noon, TUESDAY.date, Decimal(12))


def test_a_price_made_at_the_opening_is_the_open_and_an_earlier_one_is_not() -> None:
    """The first answers of a day may be trades of the day before."""
    opens = TUESDAY.open
    early = updated_quote(Price("A", Decimal(10), opens - timedelta.resolution), TUESDAY, None, opens)
    assert not priced_in(early, TUESDAY)
    first = updated_quote(Price("A", Decimal(11), opens), TUESDAY, early, opens + MINUTE)
    assert priced_in(first, TUESDAY)
    later = updated_quote(Price("A", Decimal(12), opens + MINUTE), TUESDAY, first, opens + MINUTE)
    assert [first.open, later.open] == [11, 11]


def test_a_price_is_replaced_only_by_a_later_one() -> None:
    kept = updated_quote(Price("A", Decimal(10), NOON), MONDAY, None, NOON + MINUTE)
    for at in (NOON, NOON - MINUTE, MONDAY.open - MINUTE):
        assert updated_quote(Price("A", Decimal(11), at), MONDAY, kept, NOON + MINUTE) is kept


def test_a_quote_from_the_future_is_replaced() -> None:
    """Otherwise a price from a leader whose clock was an hour ahead would not be replaced for an hour."""
    ahead = updated_quote(Price("A", Decimal(10), NOON + 60 * MINUTE), MONDAY, None, NOON + 60 * MINUTE)
    assert updated_quote(Price("A", Decimal(11), NOON), MONDAY, ahead, NOON).price == 11


answers = st.lists(
    st.tuples(prices, st.integers(-30, 30)).map(lambda made: Price("A", made[0], TUESDAY.open + made[1] * MINUTE)),
    max_size=8,
)


@given(answers)
def test_in_any_order_of_prices_the_newest_counts_and_the_open_is_the_sessions_first(
    answers: Sequence[Price],
) -> None:
    quote: Quote | None = None
    for number, price in enumerate(answers, start=1):
        quote = updated_quote(price, TUESDAY, quote, TUESDAY.open + 60 * MINUTE)
        last, opened = last_and_open(answers[:number], TUESDAY)
        assert (quote.price, quote.at) == (last.price, last.at)
        assert (quote.open if priced_in(quote, TUESDAY) else quote.price) == opened
