"""Metrics and logs for operators: values computed at each scrape, warnings logged once, and both log formats."""

import json
import logging
import re
from collections.abc import AsyncIterator

import pytest

from ops.local.servers import RedisServer
from sidecar.election.lease import Lease
from sidecar.protocol import Call, Kind, LeaseStatus, Outcome, Reply, State, Transition
from sidecar.redis.failures import Failure
from sidecar.redis.watch import RedisWatch, WatchMode
from sidecar.telemetry import Telemetry, log_to_stdout
from tests.support.one_lease import BELIEVED, T, fresh_lease, leading
from tests.support.outputs import flush_log
from tests.support.storing import Storing, at_port, storing


def nothing(_: str) -> None:
    """Ignore the event."""


class Shown:
    """The metrics of a sidecar at `now`, which the test sets.

    The sidecar leads the lease `led`; no client asked for the lease `idle`.
    """

    def __init__(self, store: Storing) -> None:
        self.now = 100.0
        self.leases: dict[str, Lease] = {"led": leading(100.0), "idle": fresh_lease()}
        self.telemetry = Telemetry("a", clock=lambda: self.now)
        self.watch = RedisWatch(at_port(1), {}, nothing, nothing, limit=1, interval=1, uniform=lambda low, high: low)
        self.telemetry.watch(self.statuses, store.store, self.watch)

    def statuses(self) -> dict[str, LeaseStatus]:
        return {
            name: LeaseStatus(
                *lease.view(self.now), lease.leads(self.now), lease.remaining(self.now), None, not lease.follows_only
            )
            for name, lease in self.leases.items()
        }

    def value(self, name: str, **labels: str) -> float | None:
        return self.telemetry.registry.get_sample_value(f"sidecar_{name}", labels)


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[Storing]:
    async with storing(at_port(redis_server.port)) as store:
        yield store


@pytest.fixture
def shown(store: Storing) -> Shown:
    return Shown(store)


def test_the_remaining_time_of_a_term_is_computed_at_the_scrape(shown: Shown) -> None:
    assert shown.value("lease_remaining_seconds", lease="led") == BELIEVED
    shown.now += 3
    assert shown.value("lease_remaining_seconds", lease="led") == BELIEVED - 3
    assert (shown.value("leading", lease="led"), shown.value("token", lease="led")) == (1, 1)
    assert shown.value("state", lease="led", state="leading") == 1
    shown.now += BELIEVED
    assert shown.value("lease_remaining_seconds", lease="led") == 0
    assert (shown.value("leading", lease="led"), shown.value("token", lease="led")) == (0, 0)
    assert shown.value("state", lease="led", state="leading") == 0
    assert (shown.value("lease_remaining_seconds", lease="idle"), shown.value("leading", lease="idle")) == (0, 0)
    assert (shown.value("campaigns", lease="led"), shown.value("campaigns", lease="idle")) == (1, 1)
    assert shown.value("state", lease="idle", state="waiting") == 1


def test_the_silence_of_a_client_counts_from_its_last_request(shown: Shown) -> None:
    assert shown.value("client_last_poll_seconds", lease="led") is None
    shown.telemetry.polled("led", 98.0)
    shown.telemetry.polled("led", 99.0)
    assert shown.value("client_last_poll_seconds", lease="led") == 1
    shown.now += 5
    assert shown.value("client_last_poll_seconds", lease="led") == 6
    assert shown.value("client_last_poll_seconds", lease="idle") is None


@pytest.mark.parametrize("outcome", [Outcome.FENCE_AHEAD, Outcome.BAD_FENCE])
def test_the_metric_of_an_invalid_fence_is_1_until_the_repair(shown: Shown, outcome: Outcome) -> None:
    lease = shown.leases["idle"]
    assert shown.value("fence_refuses", lease="idle") == 0

    def answer(outcome: Outcome) -> None:
        lease.asked(shown.now)
        call = lease.next_call(shown.now)
        assert call is not None
        lease.replied(call, Reply(outcome), shown.now)
        shown.telemetry.answered("idle", call, outcome, shown.now)

    answer(outcome)
    assert (shown.value("fence_refuses", lease="idle"), shown.value("fence_refuses", lease="led")) == (1, 0)
    shown.now += 10
    answer(Outcome.VACANT)
    assert shown.value("fence_refuses", lease="idle") == 0


@pytest.mark.parametrize(
    ("outcome", "holder", "metrics"),
    [
        (Outcome.HELD, "b", {"follows_holder"}),
        (Outcome.HELD, "", set()),
        (Outcome.VACANT, None, set()),
        (Outcome.SUPERSEDED, "a", set()),
        (Outcome.WRONG_TYPE, None, set()),
        (Outcome.UNCONFIRMED, "a", {"unconfirmed"}),
        (Outcome.FENCE_AHEAD, "b", {"fence_refuses"}),
        (Outcome.DISABLED, "DISABLED", set()),
    ],
)
def test_a_lease_follows_a_holder_only_if_another_candidate_has_the_key(
    shown: Shown, outcome: Outcome, holder: str | None, metrics: set[str]
) -> None:
    """The alert about a lease that nobody leads is silent while a task follows a holder."""
    lease = shown.leases["idle"]
    lease.asked(shown.now)
    call = lease.next_call(shown.now)
    assert call is not None
    lease.replied(call, Reply(outcome, holder), shown.now)
    shown.telemetry.answered("idle", call, outcome, shown.now)
    names = {"follows_holder", "unconfirmed", "fence_refuses"}
    assert {name for name in names if shown.value(name, lease="idle")} == metrics
    shown.now += T.demand
    assert lease.view(shown.now).state is State.WAITING
    assert not any(shown.value(name, lease="idle") for name in names)


@pytest.mark.parametrize("guard", ["on", "off", "unavailable", None])
def test_exactly_one_state_of_the_failover_guard_is_1(shown: Shown, store: Storing, guard: str | None) -> None:
    store.store.guard = guard
    states = {state: shown.value("failover_guard", guard=state) for state in ("on", "off", "unavailable")}
    assert states == {state: float(state == guard) for state in ("on", "off", "unavailable")}


async def test_redis_is_up_while_the_connection_is_good(shown: Shown, store: Storing) -> None:
    assert (shown.value("redis_up"), shown.value("redis_eviction_policy", policy="noeviction")) == (0, None)
    await store.outcome(Kind.LOOK)
    assert (shown.value("redis_up"), shown.value("redis_eviction_policy", policy="noeviction")) == (1, 1)
    await store.store.close()
    assert shown.value("redis_up") == 0
    store.store.eviction_policy = "volatile-lru"
    assert shown.value("redis_eviction_policy", policy="volatile-lru") == 1
    assert shown.value("redis_eviction_policy", policy="noeviction") is None


@pytest.mark.parametrize("notice", ["sent", "refused", None])
def test_the_result_of_the_last_release_notice_is_a_metric(shown: Shown, store: Storing, notice: str | None) -> None:
    store.store.release_notice = notice
    states = {word: shown.value("release_notice", notice=word) for word in ("sent", "refused")}
    assert states == {word: float(word == notice) for word in ("sent", "refused")}


@pytest.mark.parametrize("mode", WatchMode)
def test_exactly_one_mode_of_the_watch_is_1(shown: Shown, mode: WatchMode) -> None:
    shown.watch.mode = mode
    assert {each: shown.value("watch_mode", mode=each) for each in WatchMode} == {
        each: each is mode for each in WatchMode
    }


def test_only_renewals_are_timed(shown: Shown) -> None:
    for kind in (Kind.ACQUIRE, Kind.LOOK, Kind.RELEASE):
        shown.telemetry.answered("led", Call(kind, 100.0, 102.0), Outcome.VACANT, 100.5)
    assert shown.value("renewal_duration_seconds_count") == 0
    shown.telemetry.answered("led", Call(Kind.RENEW, 100.0, 102.0), Outcome.VACANT, 100.03)
    assert shown.value("renewal_duration_seconds_count") == 1
    assert shown.value("renewal_duration_seconds_sum") == pytest.approx(0.03)
    assert shown.value("renewal_duration_seconds_bucket", le="0.05") == 1
    assert shown.value("renewal_duration_seconds_bucket", le="0.025") == 0


def test_the_end_of_a_term_is_logged_with_its_length(shown: Shown, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    shown.telemetry.transition("idle", Transition(leads=False, token=None, reason="held", at=99.0))
    shown.telemetry.transition("idle", Transition(leads=True, token=7, reason="acquired", at=100.0))
    shown.now += 60
    shown.telemetry.transition("idle", Transition(leads=False, token=7, reason="deadline", at=112.5))
    fields = [(each["event"], each["token"], each["reason"], each.get("seconds")) for each in map(vars, caplog.records)]
    assert fields == [
        ("not_leading", None, "held", None),
        ("term_began", 7, "acquired", None),
        ("term_ended", 7, "deadline", 12.5),
    ]


def test_a_state_is_logged_when_it_or_the_holder_changes(shown: Shown, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    for state, holder in (
        (State.FOLLOWING, "b"), (State.FOLLOWING, "b"), (State.FOLLOWING, "c"), (State.LEADING, "a"),
        (State.DISABLED, "DISABLED"), (State.DISABLED, "DISABLED"), (State.DISCONNECTED, None),
    ):  # fmt: skip
        shown.telemetry.state("led", state, holder)
    shown.telemetry.state("idle", State.DISCONNECTED, None)
    fields = [(each["lease"], each["state"], each.get("holder")) for each in map(vars, caplog.records)]
    assert fields == [
        ("led", "following", "b"),
        ("led", "following", "c"),
        ("led", "disabled", "DISABLED"),
        ("led", "disconnected", None),
        ("idle", "disconnected", None),
    ], "the log line of a new term has reported the state leading"


def test_each_failure_is_counted_and_each_reason_is_logged_once(shown: Shown, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    for kind in ("timeout", "timeout", "oom"):
        shown.telemetry.failed("led", Failure(kind, "why", may_execute=False))
    assert (shown.value("redis_errors_total", kind="timeout"), shown.value("redis_errors_total", kind="oom")) == (2, 1)
    shown.telemetry.answered("led", Call(Kind.LOOK, 100.0, 102.0), Outcome.VACANT, 100.5)
    shown.telemetry.answered("led", Call(Kind.LOOK, 100.0, 102.0), Outcome.VACANT, 100.5)
    assert [(record.levelname, getattr(record, "kind", None)) for record in caplog.records] == [
        ("ERROR", "timeout"),
        ("ERROR", "oom"),
        ("INFO", None),
    ]


def _log_levels(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None]]:
    levels = [(record.levelname, getattr(record, "lease", None)) for record in caplog.records]
    caplog.clear()
    return levels


def test_the_start_and_the_end_of_an_outage_are_each_logged_once(
    shown: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    failure = Failure("connection", "why", may_execute=False)
    answer = "led", Call(Kind.LOOK, 100.0, 102.0), Outcome.VACANT, 100.5

    for _ in range(2):  # without demand, the second outage is logged like the first
        shown.telemetry.failed(None, failure)
        shown.telemetry.failed(None, failure)
        shown.telemetry.connected()
        shown.telemetry.connected()
        assert _log_levels(caplog) == [("ERROR", None), ("INFO", None)]

    shown.telemetry.failed(None, failure)
    shown.telemetry.failed("led", failure)
    shown.telemetry.connected()
    assert _log_levels(caplog) == [("ERROR", None)]  # the calls of the lease have no answer yet
    shown.telemetry.answered(*answer)
    assert _log_levels(caplog) == [("INFO", "led")]

    shown.telemetry.failed("led", failure)
    shown.telemetry.failed(None, failure)
    assert _log_levels(caplog) == [("ERROR", "led")]
    shown.telemetry.answered(*answer)
    assert _log_levels(caplog) == [("INFO", "led")]

    shown.telemetry.failed(None, failure)
    shown.telemetry.answered(*answer)  # a call opened the connection
    assert _log_levels(caplog) == [("ERROR", None), ("INFO", "led")]


@pytest.mark.parametrize(
    ("server", "harmless", "warning"),
    [
        (("unavailable", None), ("on", None), "No failover guard: "),
        (("on", None, "refused"), ("on", None, "sent"), "Releases are not published: "),
        (
            ("on", "volatile-lru"),
            ("on", "noeviction"),
            "Redis may evict the leases: its maxmemory policy",
        ),
    ],
)
def test_an_unsafe_server_is_warned_about_once_each_time_it_becomes_unsafe(
    shown: Shown,
    caplog: pytest.LogCaptureFixture,
    server: tuple[str, str | None, str | None] | tuple[str, str | None],
    harmless: tuple[str, str | None, str | None] | tuple[str, str | None],
    warning: str,
) -> None:
    for it in (harmless, server, server, harmless, server):
        shown.telemetry.server(*it)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert all(record.getMessage().startswith(warning) for record in caplog.records)


@pytest.mark.usefixtures("logging_as_it_was")
def test_a_text_log_line_is_time_level_message_and_the_set_fields(capfd: pytest.CaptureFixture[str]) -> None:
    log_to_stdout("text", "INFO")
    log = logging.getLogger("sidecar.some")
    log.debug("not shown")
    log.warning("leads %s", "now", extra={"lease": "x", "token": 7, "instance": None})
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed", extra={"lease": "x"})
    flush_log()
    line, failed, *traceback = capfd.readouterr().out.splitlines()
    time = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ"
    assert re.fullmatch(rf"{time} WARNING leads now lease=x token=7", line)
    assert re.fullmatch(rf"{time} ERROR   failed lease=x", failed)
    assert traceback[-1] == "  ValueError: why"


@pytest.mark.usefixtures("logging_as_it_was")
def test_a_json_log_line_contains_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    log_to_stdout("json", "INFO")
    logging.getLogger("sidecar.some").info("leads %s", "now", extra={"lease": "x", "token": 7})
    flush_log()
    line = json.loads(capfd.readouterr().out)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "INFO", "logger": "sidecar.some", "message": "leads now", "lease": "x", "token": 7}


def test_a_connection_that_cannot_be_replaced_is_counted_and_logged(
    shown: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    shown.telemetry.not_replaced(Failure("auth", "WRONGPASS", may_execute=False))
    assert shown.value("redis_errors_total", kind="auth") == 1
    assert [record.getMessage() for record in caplog.records] == [
        "The connection to Redis is old and cannot be replaced yet: WRONGPASS"
    ]


def test_a_failed_fetch_of_credentials_is_counted(shown: Shown) -> None:
    shown.telemetry.credentials_failed("no credentials of the task's role")
    assert shown.value("redis_errors_total", kind="credentials") == 1
