"""Logs and metrics of the sidecar. They do not affect the election."""

import logging
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runtime import logs
from runtime.escape import one_line
from runtime.event_loop import TaskCollector
from sidecar.protocol import Call, Kind, LeaseStatus, Outcome, Reason, State, Transition
from sidecar.redis.failures import Failure
from sidecar.redis.store import RedisStore
from sidecar.redis.watch import RedisWatch, WatchMode

log = logging.getLogger("sidecar")

_REASONS: dict[str, tuple[str, ...]] = {
    "leader": (Outcome.ACQUIRED, Outcome.ADOPTED),
    "follower": (*Reason, Outcome.HELD, Outcome.VACANT, Outcome.DISABLED, Outcome.SUPERSEDED),
}
"""Label values that are exported as 0 from the start.

A task leads rarely, and a counter whose first sample is 1 shows no increase.
"""


class Telemetry:
    """Counts events, and logs once each fact that an operator must see."""

    def __init__(self, instance_id: str, *, clock: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(TaskCollector())
        self._instance_id = instance_id
        self._clock = clock
        self._transitions = Counter(
            "sidecar_transitions",
            "Terms that began (to=leader) or ended, and first replies without a term (to=follower)",
            ["lease", "to", "reason"],
            registry=self.registry,
        )  # fmt: skip
        self._renewals = Histogram(
            "sidecar_renewal_duration_seconds", "Time from before a renewal was sent until its reply",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2), registry=self.registry,
        )  # fmt: skip
        self._errors = Counter("sidecar_redis_errors", "Calls to Redis that failed", ["kind"], registry=self.registry)
        self._polled_at: dict[str, float] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._began: dict[str, float] = {}
        self._states: dict[str, tuple[State, str | None]] = {}
        self._failing: dict[str | None, str] = {}
        self._disagreements: dict[str, str | None] = {}
        self._server: tuple[str | None, ...] = (None, None, None, None)

    def transition(self, lease: str, transition: Transition) -> None:
        """Count and log a transition: a term began or ended, or the first reply gave this task no term.

        The end of a term is logged with its length in seconds.
        """
        to = "leader" if transition.leads else "follower"
        self._transitions.labels(lease, to, transition.reason).inc()
        is_so = "is the LEADER, starting" if transition.leads else "is NOT the leader, skipping"
        fields: dict[str, object] = {
            "lease": lease,
            "instance": self._instance_id,
            "token": transition.token,
            "reason": transition.reason,
        }
        began = self._began.pop(lease, None)
        if transition.leads:
            self._began[lease] = transition.at
            fields["event"] = "term_began"
        elif began is not None:
            fields |= {"event": "term_ended", "seconds": round(transition.at - began, 3)}
        else:
            fields["event"] = "not_leading"
        log.info("Instance %s %s background services", self._instance_id, is_so, extra=fields)

    def state(self, lease: str, state: State, holder: str | None) -> None:
        """Log a change of a lease's state or holder. `transition` logs the beginning of this task's term."""
        if self._states.get(lease) == (state, holder):
            return
        self._states[lease] = state, holder
        if state is State.LEADING:
            return
        fields = {"lease": lease, "instance": self._instance_id, "state": str(state), "event": "state_changed"}
        if holder is None:
            log.info("Lease %s: the state is %s", lease, state, extra=fields)
        else:
            text = "Lease %s: the state is %s, and the holder is %s"
            log.info(text, lease, state, holder, extra=fields | {"holder": holder})

    def polled(self, lease: str, now: float) -> None:
        """Record that a client asked about a lease."""
        self._polled_at[lease] = now

    def answered(self, lease: str, call: Call, outcome: Outcome, now: float) -> None:
        """Record that Redis answered a call."""
        self._outcomes[lease] = outcome
        if call.kind is Kind.RENEW:
            self._renewals.observe(now - call.sent_at)
        if outcome is Outcome.STEPPING_DOWN:
            fields = {"lease": lease, "instance": self._instance_id, "token": call.token, "event": "step_down_asked"}
            text = "An operator asked this task to step down; it releases the lease when its client has stopped"
            log.info(text, extra=fields)
        ended = [self._failing.pop(each, None) for each in (None, lease)]
        if any(ended):
            log.info("Redis answers again", extra={"lease": lease, "event": "redis_recovered"})

    def connected(self) -> None:
        """Record a new connection. A lease whose call failed counts as failing until one of its calls is answered."""
        if self._failing.pop(None, None) is not None and not self._failing:
            log.info("Redis answers again", extra={"event": "redis_recovered"})

    def failed(self, lease: str | None, failure: Failure) -> None:
        """Count a failed call of a lease, or a failed connection if `lease` is None; log each kind of failure once."""
        self._errors.labels(failure.kind).inc()
        said = self._failing.values() if lease is None else [self._failing.get(each) for each in (None, lease)]
        is_news = failure.kind not in said
        self._failing[lease] = failure.kind
        if is_news:
            fields = {"lease": lease, "kind": failure.kind, "event": "redis_failed"}
            log.error("Redis failed: %s", failure.text, extra=fields)

    def not_replaced(self, failure: Failure) -> None:
        """Count and log that a connection could not be replaced.

        The old connection stays in use until the server cuts it.
        """
        self._errors.labels(failure.kind).inc()
        log.warning("The connection to Redis is old and cannot be replaced yet: %s", failure.text)

    def credentials_failed(self, _problem: str) -> None:
        """Count a failed attempt to fetch the credentials for a login; `sidecar.redis.iam` logs why."""
        self._errors.labels("credentials").inc()

    def troubled(self, lease: str, trouble: str) -> None:
        """Log the trouble of a lease."""
        log.error("Lease %s: %s", lease, trouble, extra={"lease": lease, "event": "lease_troubled"})

    def disagrees(self, lease: str, disagreement: str | None) -> None:
        """Log a disagreement with another task's settings once."""
        if disagreement not in (None, self._disagreements.get(lease)):
            log.warning("Lease %s: %s", lease, disagreement, extra={"lease": lease})
        self._disagreements[lease] = disagreement

    def server(
        self,
        guard: str | None,
        eviction_policy: str | None,
        release_notice: str | None = None,
        history: str | None = None,
    ) -> None:
        """Log each limitation of the server when it is first known and when it changes."""
        was_guard, was_policy, was_notice, was_history = self._server
        self._server = (guard, eviction_policy, release_notice, history)
        if guard == "unavailable" and guard != was_guard:
            log.warning(
                "No failover guard: this Redis refuses INFO in scripts; a failover that loses a write may elect two"
                " leaders. docs/redis.md lists the rights that the user needs"
            )
        if eviction_policy not in (None, was_policy, "noeviction"):
            log.warning("Redis may evict the leases: its maxmemory policy is %s; set noeviction", eviction_policy)
        if release_notice == "refused" and release_notice != was_notice:
            log.warning(
                "Releases are not published: this Redis refuses PUBLISH on the lease's channel (KEY:changed);"
                " a candidate that does not track the key notices a release within its heartbeat."
                " docs/redis.md lists the rights that the user needs"
            )
        if history == "refused" and history != was_history:
            log.warning(
                "The history of terms is not kept: this Redis refuses XADD on the lease's stream (history:{KEY})."
                " Nothing else depends on it. docs/redis.md lists the rights that the user needs"
            )

    def watch(
        self, statuses: Callable[[], Mapping[str, LeaseStatus]], store: RedisStore, redis_watch: RedisWatch
    ) -> None:
        """Export the state of the leases, the store and the watch, read at each scrape."""
        for lease in statuses():
            for to, reasons in _REASONS.items():
                for reason in reasons:
                    self._transitions.labels(lease, to, reason)
        self.registry.register(_Gauges(statuses, store, redis_watch, self._polled_at, self._outcomes, self._clock))


class _Gauges(Collector):
    """Gauges that are computed at each scrape, so that no value is out of date."""

    def __init__(
        self,
        statuses: Callable[[], Mapping[str, LeaseStatus]],
        store: RedisStore,
        redis_watch: RedisWatch,
        polled_at: Mapping[str, float],
        outcomes: Mapping[str, Outcome],
        clock: Callable[[], float],
    ) -> None:
        self._statuses = statuses
        self._store = store
        self._watch = redis_watch
        self._polled_at = polled_at
        self._outcomes = outcomes
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        now = self._clock()
        leading = GaugeMetricFamily("sidecar_leading", "1 while this task leads the lease", labels=["lease"])
        remaining = GaugeMetricFamily(
            "sidecar_lease_remaining_seconds", "Seconds until the term ends unless it is renewed", labels=["lease"]
        )
        token = GaugeMetricFamily("sidecar_token", "The term's fencing token, 0 without a term", labels=["lease"])
        state = GaugeMetricFamily("sidecar_state", "1 for the state of the lease", labels=["lease", "state"])
        silence = GaugeMetricFamily(
            "sidecar_client_last_poll_seconds", "Seconds since a client last asked", labels=["lease"]
        )
        fence = GaugeMetricFamily(
            "sidecar_fence_refuses", "1 while the fence in Redis refuses every term of the lease", labels=["lease"]
        )
        follows = GaugeMetricFamily(
            "sidecar_follows_holder", "1 while another holder has the lease, as this task sees it", labels=["lease"]
        )
        unconfirmed = GaugeMetricFamily(
            "sidecar_unconfirmed",
            "1 while this task does not lead because fewer replicas than MIN_REPLICAS have its write",
            labels=["lease"],
        )
        campaigns = GaugeMetricFamily(
            "sidecar_campaigns", "0 while this task follows only (CAMPAIGN=false)", labels=["lease"]
        )
        stepped_down = GaugeMetricFamily(
            "sidecar_stepped_down", "1 from an operator's step-down until this task may lead again", labels=["lease"]
        )
        for name, status in self._statuses().items():
            stepped_down.add_metric([name], float(status.step_down is not None))
            campaigns.add_metric([name], float(status.campaigns))
            outcome = self._outcomes.get(name) if status.state is State.FOLLOWING else None
            follows.add_metric([name], float(outcome is Outcome.HELD and bool(status.holder)))
            unconfirmed.add_metric([name], float(outcome is Outcome.UNCONFIRMED))
            fence.add_metric([name], float(outcome in (Outcome.BAD_FENCE, Outcome.FENCE_AHEAD)))
            leading.add_metric([name], float(status.leads))
            remaining.add_metric([name], status.remaining)
            token.add_metric([name], status.token or 0)
            for each in State:
                state.add_metric([name, each], float(status.state is each))
            if name in self._polled_at:
                silence.add_metric([name], now - self._polled_at[name])
        watch = GaugeMetricFamily("sidecar_watch_mode", "1 for the way in which changes are noticed", labels=["mode"])
        for mode in WatchMode:
            watch.add_metric([mode], float(self._watch.mode is mode))
        guard = GaugeMetricFamily("sidecar_failover_guard", "1 for the state of the failover guard", labels=["guard"])
        for setting in ("on", "off", "unavailable"):
            guard.add_metric([setting], float(self._store.guard == setting))
        notice = GaugeMetricFamily(
            "sidecar_release_notice", "1 for the result of publishing the last release", labels=["notice"]
        )
        for word in ("sent", "refused"):
            notice.add_metric([word], float(self._store.release_notice == word))
        history = GaugeMetricFamily(
            "sidecar_history", "1 for the result of the last append to a lease's history", labels=["history"]
        )
        for word in ("kept", "refused"):
            history.add_metric([word], float(self._store.history == word))
        up = GaugeMetricFamily(
            "sidecar_redis_up", "1 while the connection to Redis is good", float(self._store.connected)
        )
        policy = GaugeMetricFamily(
            "sidecar_redis_eviction_policy", "1 for the server's maxmemory policy", labels=["policy"]
        )
        if self._store.eviction_policy:
            policy.add_metric([one_line(self._store.eviction_policy)], 1.0)
        yield from (up, campaigns, leading, remaining, token, state, stepped_down, silence, follows, unconfirmed, fence)
        yield from (watch, guard, notice, history, policy)


def log_to_stdout(form: str, level: str) -> None:
    """Configure logging to standard output: `form` is `json` or `text`, and `level` is the name of a level."""
    logs.log_to_stdout(form, level)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
