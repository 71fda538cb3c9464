"""Selected metrics as log lines, for systems that read metrics from logs, such as CloudWatch's metric filters.

With one line per minute for each sample, an alarm can distinguish the value 0 from a task that logs nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)  # LOG_LEVEL must not filter these lines: alarms read them

INTERVAL = 60.0
"""Pause between two lines of one sample, in seconds.

An alarm with a period of one minute gets a line in nearly every period.
"""


async def log_metrics(
    registry: CollectorRegistry,
    names: Collection[str],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Log the samples of these metrics once a minute, until cancelled.

    Each line has the fields `metric` and `value` and one field for each label.
    """
    while True:
        await sleep(INTERVAL)
        for family in registry.collect():
            for sample in family.samples:
                if sample.name in names:
                    fields = {"metric": sample.name, "value": sample.value, **sample.labels}
                    log.info("%s is %g", sample.name, sample.value, extra=fields)
