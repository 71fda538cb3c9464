"""The number of asyncio tasks as a metric: the number rises if work starts again and again and never ends."""

import asyncio
from collections.abc import Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class TaskCollector(Collector):
    """Counts the unfinished tasks of the running event loop at each scrape. Outside a loop the metric has no sample."""

    def collect(self) -> Iterator[Metric]:
        """One sample without labels."""
        tasks = GaugeMetricFamily("python_asyncio_tasks", "Unfinished asyncio tasks")
        try:
            tasks.add_metric([], len(asyncio.all_tasks()))
        except RuntimeError:  # no loop runs in this thread
            return
        yield tasks
