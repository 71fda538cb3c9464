"""Responses: the notation of each kind of value. The schema of a model names every field that is sent."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import jsonschema_rs
import pytest

from service.api.internal_responses import JobRun as JobRunResponse
from service.api.openapi import description
from service.api.responses import Error, FieldError, LiveValue
from service.portfolio import records

NOON = datetime(2026, 2, 13, 12, 0, tzinfo=UTC)
VALUE = records.LiveValue(
    portfolio_id=UUID(int=1),
    session_date=date(2026, 2, 13),
    as_of=NOON,
    value=Decimal("2.5000"),
    day_open=Decimal("3.0000"),
    day_high=None,
    day_low=None,
    priced_fraction=Decimal("1.0000"),
    stale=False,
    oldest_price_at=None,
    token=7,
)


def shown(**changes: Any) -> Any:
    fields = {name: getattr(VALUE, name) for name in VALUE.__slots__} | changes
    return json.loads(LiveValue.of(records.LiveValue(**fields)).to_json())


def test_a_record_is_sent_with_every_field_and_matches_its_schema() -> None:
    schema = {"$ref": "#/components/schemas/LiveValue", **description()}
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(shown())
    assert shown()["day_change"] == "-0.5000"


@pytest.mark.parametrize(
    ("value", "text"), [("1E+3", "1000"), ("0E-8", "0.00000000"), ("1234567890.1234", "1234567890.1234")]
)
def test_a_decimal_is_a_string_in_plain_notation(value: str, text: str) -> None:
    assert shown(day_high=Decimal(value))["day_high"] == text


def test_an_instant_is_sent_in_utc() -> None:
    new_york = timezone(timedelta(hours=-5))
    assert (
        shown(as_of=datetime(2026, 2, 13, 9, 30, 0, 250_000, tzinfo=new_york))["as_of"] == "2026-02-13T14:30:00.250000Z"
    )
    assert shown()["as_of"] == "2026-02-13T12:00:00Z"


def test_a_record_with_a_missing_attribute_is_an_error() -> None:
    with pytest.raises(ValueError, match="session_date"):
        LiveValue.of(SimpleNamespace(portfolio_id=UUID(int=1)))


def test_an_error_may_repeat_half_a_surrogate_pair() -> None:
    assert FieldError(error="no such field", field="[0].\ud800").to_json() == (
        '{"error":"no such field","field":"[0].\\ud800"}'
    )
    assert Error(error="é").to_json() == '{"error":"\\u00e9"}'


def test_texts_of_other_tasks_are_escaped_and_cut() -> None:
    run = records.JobRun(
        job="eod",
        session_date=date(2026, 2, 13),
        status="running",
        cursor=None,
        skipped=[],
        rows_written=0,
        rows_added=0,
        rows_changed=0,
        attempts=1,
        error="\x1b" + "e" * 1000,
        holder="h\n" + "h" * 1000,
        token=1,
        started_at=NOON,
        updated_at=NOON,
        finished_at=None,
    )
    response = JobRunResponse.of(run)
    assert response.error is not None
    assert response.error.startswith(r"\x1be")
    assert 200 < len(response.error) <= 300
    assert response.holder.startswith(r"h\nh")
    assert len(response.holder) <= 200
