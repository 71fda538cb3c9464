"""The metric of asyncio tasks."""

import asyncio

from prometheus_client import CollectorRegistry, generate_latest

from runtime.event_loop import TaskCollector
from service.telemetry import new_registry
from sidecar.telemetry import Telemetry


def tasks_in(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("python_asyncio_tasks")


async def test_each_unfinished_task_counts() -> None:
    registry = CollectorRegistry()
    registry.register(TaskCollector())
    before = tasks_in(registry)
    assert before is not None
    waiting = [asyncio.create_task(asyncio.sleep(60)) for _ in range(3)]
    assert tasks_in(registry) == before + 3
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert tasks_in(registry) == before


async def test_both_containers_have_the_metric() -> None:
    for registry in (new_registry(), Telemetry("one", clock=lambda: 0.0).registry):
        assert b"python_asyncio_tasks 1" in generate_latest(registry)


def test_without_a_loop_there_is_no_sample() -> None:
    registry = CollectorRegistry()
    registry.register(TaskCollector())
    assert b"python_asyncio_tasks " not in generate_latest(registry)
