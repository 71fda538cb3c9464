"""The candidate's estimate of the Redis server's clock."""

from sidecar.protocol import ServerClock, Timings

TIMINGS = Timings()
SERVER_TIME = 1_790_000_000_000_000  # µs


def observed(at: float) -> ServerClock:
    clock = ServerClock(TIMINGS.server_time_valid_for)
    clock.observe(SERVER_TIME, at)
    return clock


def test_a_deadline_is_stated_in_the_servers_time() -> None:
    assert observed(100.0).at(102.5, 100.5) == SERVER_TIME + 2_500_000


def test_before_the_first_reply_every_deadline_has_passed() -> None:
    assert ServerClock(TIMINGS.server_time_valid_for).at(102.0, 100.0) == 0


def test_an_old_reply_is_ignored_because_clock_rates_differ() -> None:
    clock, last = observed(100.0), 100.0 + TIMINGS.server_time_valid_for
    assert clock.at(last + 2.0, last) > 0
    assert clock.at(last + 2.1, last + 0.1) == 0


def test_the_last_heartbeats_reply_is_valid_for_all_calls_of_the_next_heartbeat() -> None:
    sent_at = 100.0 + TIMINGS.heartbeat + TIMINGS.call_limit
    assert observed(100.0).at(sent_at + TIMINGS.call_limit, sent_at) > 0
