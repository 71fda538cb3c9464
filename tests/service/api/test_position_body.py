"""The body with a user's positions: what is accepted, and how errors name each invalid field."""

import json
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.position_body import MAX_ENTRIES, MAX_ERRORS, InvalidEntries, read_entries
from service.portfolio.records import PositionEntry

PORTFOLIO, USER = UUID(int=1), UUID(int=2)
GOOD = {"symbol": "KO", "quantity": "2.5", "valid_from": "2026-02-13"}


def read(body: str | bytes) -> list[PositionEntry]:
    return read_entries(body.encode() if isinstance(body, str) else body, PORTFOLIO, USER)


def errors(body: str | bytes) -> dict[str, str]:
    with pytest.raises(InvalidEntries) as caught:
        read(body)
    return {error.field: error.problem for error in caught.value.errors}


def test_an_entry_belongs_to_the_portfolio_and_is_exact_to_the_digit() -> None:
    body = """[
        {"symbol": "BRK.B", "quantity": "1234567890.12345678", "valid_from": "2026-02-13"},
        {"quantity": 0.1, "symbol": "KO", "valid_from": "1970-01-01"},
        {"symbol": "KO", "quantity": 0, "valid_from": "2026-02-13"},
        {"symbol": "A", "quantity": 1e-8, "valid_from": "2099-12-31"},
        {"symbol": "B", "quantity": "3.1000000000000", "valid_from": "2024-02-29"}
    ]"""
    found = read(body)
    assert [(entry.symbol, entry.quantity, entry.valid_from) for entry in found] == [
        ("BRK.B", Decimal("1234567890.12345678"), date(2026, 2, 13)),
        ("KO", Decimal("0.1"), date(1970, 1, 1)),
        ("KO", Decimal(0), date(2026, 2, 13)),
        ("A", Decimal("0.00000001"), date(2099, 12, 31)),
        ("B", Decimal("3.1"), date(2024, 2, 29)),
    ]
    assert {(entry.portfolio_id, entry.user_id) for entry in found} == {(PORTFOLIO, USER)}


WRONG_SYMBOLS: list[Any] = ["", "ko", " KO", "KO\n", "A,B", "Ä", "A" * 21, ".A", None, 7, 1.5, ["KO"]]
WRONG_QUANTITIES: list[Any] = [
    *("", "-1", "NaN", "Infinity", "1,5", "1_0", "٣", " 1", "1.", ".5", "9" * 41),
    *("1e9999", "10000000000", "0.123456789", "1e-999"),
    *(-1, 1e10, 1e-9, float("nan"), float("inf"), None, True, [], {}),
]
WRONG_DATES: list[Any] = [
    *("", "13.2.2026", "20260213", "2026-W07-5", "2026-02-30", "0000-01-01", "1969-12-31", "2100-01-01"),
    *("2026-02-13T00:00:00Z", None, 20260213),
]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("symbol", value) for value in WRONG_SYMBOLS),
        *(("quantity", value) for value in WRONG_QUANTITIES),
        *(("valid_from", value) for value in WRONG_DATES),
    ],
)
def test_the_error_for_a_wrong_value_names_its_index_and_field(field: str, value: object) -> None:
    another = {**GOOD, "symbol": "A"}
    assert errors(json.dumps([GOOD, {**another, field: value}])).keys() == {f"[1].{field}"}


def test_every_wrong_missing_or_unknown_field_is_named() -> None:
    rows: list[Any] = [{**GOOD, "quantity": -1, "symbol": "ko"}, {}, {**GOOD, "price": 1}, 7, GOOD]
    assert list(errors(json.dumps(rows)).items()) == [
        ("[0].symbol", "not a symbol: 1 to 20 of A-Z, 0-9, '.', '/' and '-'"),
        ("[0].quantity", "not a decimal number of zero or more"),
        ("[1].symbol", "missing"),
        ("[1].quantity", "missing"),
        ("[1].valid_from", "missing"),
        ("[2].price", "no such field"),
        ("[3]", "not an object"),
    ]


def test_a_repeated_entry_is_an_error() -> None:
    assert errors(json.dumps([GOOD, {**GOOD, "valid_from": "2026-02-14"}, {**GOOD, "quantity": "1"}])) == {
        "[2].symbol": "KO of 2026-02-13 is also in [0]"
    }


@pytest.mark.parametrize("field", ["symbol", "quantity", "valid_from"])
@pytest.mark.parametrize("times", [2, 3])
def test_a_repeated_field_is_an_error_even_with_equal_values(field: str, times: int) -> None:
    fields = json.dumps(GOOD)[1:-1] + f', "{field}": "{GOOD[field]}"' * (times - 1)
    assert errors(f"[{{{fields}}}]") == {f"[0].{field}": "given twice"}


def test_only_the_first_errors_are_reported() -> None:
    assert len(errors(json.dumps([{}] * MAX_ENTRIES))) == MAX_ERRORS


@pytest.mark.parametrize(
    "body",
    ["", "KO", "{}", '{"symbol": "KO"}', "null", "[]", json.dumps([GOOD] * (MAX_ENTRIES + 1)), "[" * 99_999, b"\xff"],
)
def test_a_body_that_is_not_a_list_of_positions_is_an_error_of_the_body(body: str | bytes) -> None:
    assert errors(body).keys() == {"body"}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text("KO1.-eE", max_size=9)


FIELDS = st.sampled_from(["symbol", "quantity", "valid_from", "x"])


@given(st.lists(st.dictionaries(FIELDS, SCALARS | st.lists(SCALARS)), max_size=3))
def test_any_body_is_accepted_or_refused_without_another_error(rows: list[dict[str, Any]]) -> None:
    try:
        entries = read(json.dumps(rows))
    except InvalidEntries as invalid:
        assert invalid.errors
    else:
        assert len(entries) == len(rows) > 0
