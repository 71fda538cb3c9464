"""The validation of the timings, on both sides of each boundary."""

import math

import pytest

from sidecar.protocol import Timings, UnsafeTimings

EPSILON = 1e-6


def test_the_default_timings_are_safe_and_equal_those_of_the_guide() -> None:
    timings = Timings()
    assert (timings.ttl, timings.heartbeat, timings.grant_ttl, timings.call_limit) == (30, 10, 5, 2)
    assert timings.ttl - timings.margin == pytest.approx(25)


@pytest.mark.parametrize(
    "good",
    [
        {"ttl": 0.3, "heartbeat": 0.1, "grant_ttl": 0.1, "call_limit": 0.02},
        {"ttl": 86_400.0},
        {"heartbeat": EPSILON},
        {"call_limit": 0.01},
        {"grant_ttl": 0.05},
        {"grant_ttl": 15.0},
        {"ttl": 80.0, "grant_ttl": 30.0},
        {"heartbeat": 21.0},
        {"heartbeat": 5.0, "call_limit": 10.0},
    ],
)
def test_timings_at_the_safe_side_of_a_boundary_are_accepted(good: dict[str, float]) -> None:
    timings = Timings(**good)
    assert timings.heartbeat + 2 * timings.call_limit <= timings.ttl * 5 / 6


@pytest.mark.parametrize(("given", "in_effect"), [(EPSILON, 0.05), (0.05, 0.05), (0.05 + EPSILON, 0.05 + EPSILON)])
def test_a_shorter_heartbeat_is_raised(given: float, in_effect: float) -> None:
    assert Timings(heartbeat=given).heartbeat == in_effect
    short = Timings(ttl=0.3, heartbeat=0.01, grant_ttl=0.1, call_limit=0.02)
    assert short.heartbeat == pytest.approx(0.01), "not above a thirtieth of the ttl"


@pytest.mark.parametrize(("ttl", "pause"), [(3.0, 0.1), (30.0, 1.0), (3600.0, 1.0), (86_400.0, 1.0)])
def test_the_pause_after_a_failed_call_is_short_however_long_the_ttl_is(ttl: float, pause: float) -> None:
    timings = Timings(ttl=ttl, heartbeat=ttl / 3, grant_ttl=1.0, call_limit=ttl / 15)
    assert timings.retry == pytest.approx(pause)


@pytest.mark.parametrize(
    ("setting", "bad"),
    [
        ("LEASE_TTL", {"ttl": 0.3 - EPSILON, "heartbeat": 0.1, "grant_ttl": 0.1, "call_limit": 0.02}),
        ("LEASE_TTL", {"ttl": 86_400 + EPSILON * 1e3}),
        ("LEASE_TTL", {"ttl": math.nan}),
        ("LEASE_TTL", {"ttl": math.inf}),
        ("HEARTBEAT_INTERVAL", {"heartbeat": 0.0}),
        ("HEARTBEAT_INTERVAL", {"heartbeat": math.nan}),
        ("REDIS_TIMEOUT", {"call_limit": 0.01 - EPSILON}),
        ("REDIS_TIMEOUT", {"call_limit": math.nan}),
        ("GRANT_TTL", {"grant_ttl": 0.05 - EPSILON}),
        ("GRANT_TTL", {"grant_ttl": 15 + EPSILON}),
        ("GRANT_TTL", {"ttl": 80.0, "grant_ttl": 30 + EPSILON}),
        ("GRANT_TTL", {"grant_ttl": math.nan}),
        ("HEARTBEAT_INTERVAL", {"heartbeat": 21 + EPSILON}),
        ("HEARTBEAT_INTERVAL", {"heartbeat": 5.0, "call_limit": 10 + EPSILON}),
        ("HEARTBEAT_INTERVAL", {"heartbeat": math.inf}),
    ],
)
def test_unsafe_timings_are_refused_with_the_name_of_the_setting(setting: str, bad: dict[str, float]) -> None:
    with pytest.raises(UnsafeTimings, match=f"^{setting}: ") as caught:
        Timings(**bad)
    assert list(caught.value.wrong) == [setting]


def test_each_unsafe_timing_is_named_in_a_separate_line() -> None:
    with pytest.raises(UnsafeTimings) as caught:
        Timings(heartbeat=25.0, grant_ttl=16.0, call_limit=0.001)
    assert list(caught.value.wrong) == ["REDIS_TIMEOUT", "GRANT_TTL", "HEARTBEAT_INTERVAL"]
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == list(caught.value.wrong)
