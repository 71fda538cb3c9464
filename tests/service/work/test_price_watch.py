"""The problems of prices that the operators' page reports. The thresholds are those of the alerts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from service.work.price_watch import FAILURE_PERIOD, FAILURES, UNPRICED_GRACE, UNPRICED_SHARE, PriceWatch

RULES = Path(__file__).parents[3] / "ops/prometheus/rules.yml"
NOW = datetime(2026, 3, 4, 15, 0, tzinfo=UTC)


def test_the_thresholds_are_those_of_the_alerts() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
    minutes = FAILURE_PERIOD // timedelta(minutes=1)
    expected = f"sum(increase(portfolio_prices_failures_total[{minutes}m])) > {FAILURES - 1}"
    assert alerts["PricesFail"]["expr"] == expected
    assert f"> {UNPRICED_SHARE} and" in alerts["SymbolsUnpriced"]["expr"]
    assert alerts["SymbolsUnpriced"]["for"] == f"{UNPRICED_GRACE // timedelta(minutes=1)}m"


@pytest.mark.parametrize(
    ("failures", "spacing", "fails"), [(3, 30, False), (4, 30, True), (4, 199, True), (9, 200, False), (9, 199, True)]
)
def test_four_failures_within_ten_minutes_are_reported_with_the_last_reason(
    failures: int, spacing: int, fails: bool
) -> None:
    watch = PriceWatch()
    for number in range(failures):
        last = NOW + number * timedelta(seconds=spacing)
        watch.failed(f"failure {number}", last)
    assert watch.failure(last) == (f"failure {failures - 1}" if fails else None)
    assert watch.failure(last + FAILURE_PERIOD) is None


@pytest.mark.parametrize(("unpriced", "reported"), [(5, None), (6, (6, 100))])
def test_unpriced_symbols_are_reported_after_half_an_hour(unpriced: int, reported: tuple[int, int] | None) -> None:
    watch = PriceWatch()
    for minutes in (0, 15, 29):
        watch.counted(unpriced, 100, NOW + timedelta(minutes=minutes))
    assert watch.unpriced(NOW + timedelta(minutes=29), NOW) is None
    assert watch.unpriced(NOW + UNPRICED_GRACE, NOW) == reported
    watch.counted(5, 100, NOW + UNPRICED_GRACE)
    watch.counted(6, 100, NOW + UNPRICED_GRACE)
    assert watch.unpriced(NOW + UNPRICED_GRACE, NOW) is None


def test_the_time_before_the_opening_does_not_count() -> None:
    watch, opened = PriceWatch(), NOW + timedelta(hours=17)
    watch.counted(6, 100, NOW)
    assert watch.unpriced(opened, opened) is None
    assert watch.unpriced(opened + UNPRICED_GRACE - timedelta(seconds=1), opened) is None
    assert watch.unpriced(opened + UNPRICED_GRACE, opened) == (6, 100)
