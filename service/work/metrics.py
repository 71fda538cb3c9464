"""Prometheus metrics of the work."""

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.portfolio.records import JobName


class WorkMetrics:
    """The metrics of the tracker and the scheduler in one registry; created once in a process.

    Each counter starts at zero with all its labels. A job runs once a day, and Prometheus sees no increase in a counter
    that first appears at one. No label is called `job`, because Prometheus sets that label itself.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ticks = Counter(
            "portfolio_tracker_ticks",
            "Tracker ticks by outcome: written, failed, or skipped because they were late.",
            ["outcome"],
            registry=registry,
        )
        self.tick_seconds = Histogram(
            "portfolio_tracker_tick_seconds", "Duration of a written tick.", registry=registry
        )
        self.tracked = Gauge("portfolio_tracker_portfolios", "Portfolios in the last tick.", registry=registry)
        self.held = Gauge("portfolio_tracker_held_symbols", "Symbols held in the last tick.", registry=registry)
        self.stale = Gauge(
            "portfolio_tracker_stale_symbols",
            "Held symbols with a stale price: one that was carried forward, or an old one from the source.",
            registry=registry,
        )
        self.carried = Gauge(
            "portfolio_tracker_carried_prices", "Held symbols whose price was carried forward.", registry=registry
        )
        self.unpriced = Gauge(
            "portfolio_tracker_unpriced_symbols", "Held symbols without any price.", registry=registry
        )
        self.prices_failed = Counter(
            "portfolio_prices_failures", "Queries that the price source did not answer.", registry=registry
        )
        self.runs = Counter(
            "portfolio_job_runs",
            "Attempts at a run of a job by outcome: done or failed.",
            ["job_name", "outcome"],
            registry=registry,
        )
        self.run_seconds = Histogram(
            "portfolio_job_run_seconds",
            "Duration of an attempt that finished a run.",
            ["job_name"],
            registry=registry,
            buckets=(0.1, 1, 10, 60, 300, 1800),
        )
        for outcome in ("written", "failed", "skipped"):
            self.ticks.labels(outcome)
        for job in get_args(JobName):
            self.run_seconds.labels(job)
            for outcome in ("done", "failed"):
                self.runs.labels(job, outcome)
        self.runs_waiting = Gauge(
            "portfolio_job_runs_waiting",
            "Due runs that are not done; 0 on a follower.",
            registry=registry,
        )
        self.given_up = Gauge(
            "portfolio_job_sessions_given_up",
            "Sessions that left the look-back while unsettled; 0 on a follower. A snapshot by hand settles them.",
            registry=registry,
        )
        self.protected = Gauge(
            "portfolio_task_protected",
            "1 while this task is, or might be, protected from a scale-in for a job.",
            registry=registry,
        )
        self.protection_refused = Counter(
            "portfolio_task_protection_refusals",
            "Failed attempts to begin or end the protection of this task.",
            registry=registry,
        )
