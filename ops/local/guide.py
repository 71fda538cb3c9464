"""What the user is told once everything runs: the addresses, and lines to paste into another terminal."""

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TaskView:
    """A task as the user meets it: its label, addresses (`127.0.0.1:8080`), and its containers' process ids."""

    label: str
    api: str
    control: str
    metrics: str
    pids: Mapping[str, int | None]


def addresses(tasks: Sequence[TaskView]) -> list[str]:
    """One line a task."""
    return [
        f"  {task.label:<7}API http://{task.api}   sidecar http://{task.control}   metrics http://{task.metrics}/metrics"
        f"   pids {', '.join(f'{name} {pid}' for name, pid in task.pids.items())}"
        for task in tasks
    ]


def leaders(leads: Mapping[str, str | None]) -> list[str]:
    """One line a lease."""
    return [f"  {name:<22}{task or 'nobody yet'}" for name, task in leads.items()]


def look(tasks: Sequence[TaskView], portfolio: str) -> list[str]:
    """Lines that show what goes on."""
    first, last = tasks[0], tasks[-1]
    return _aligned(
        [
            (f"curl -s http://{first.api}/portfolios/{portfolio}/live", "a live value"),
            (f"curl -sN http://{last.api}/portfolios/{portfolio}/stream", "values as they change, from any task"),
            (f"curl -s http://{first.api}/portfolios/{portfolio}/history", "what the days closed at"),
            (f"curl -s http://{first.api}/background/status", "who runs what, and when next"),
            (f"curl -s http://{first.control}/status", "the sidecar's view; to ask /is-leader is to campaign"),
            (f"curl -s http://{first.metrics}/metrics", "the sidecar's metrics; the API's: " + f"{first.api}/metrics"),
        ]
    )


def break_it(
    tasks: Sequence[TaskView], leads: Mapping[str, str | None], keys: Mapping[str, str], redis: str | None
) -> list[str]:
    """Lines that make the lead move; `redis` is the redis-cli command line, None where there is none."""
    lease, leader = next(((lease, task) for lease, task in leads.items() if task), ("", tasks[0].label))
    task = next((task for task in tasks if task.label == leader), tasks[0])
    whose = f"{task.label}, which leads {lease}" if lease else task.label
    lines = [
        (f"kill -9 {task.pids.get('api')}", f"the API of {whose}: another takes over within the grant time"),
        (
            f"kill -9 {task.pids.get('sidecar')}",
            "its sidecar: restarted by its restartPolicy, it takes its term up again",
        ),
    ]
    if redis is not None:
        key = keys.get(lease) or next(iter(keys.values()))
        lines += [
            (f"{redis} SET {key} DISABLED EX 20", "nobody leads for 20 s"),
            (f"{redis} DEL {key}", "heals at once"),
        ]
    return _aligned(lines)


def redis_cli(port: int | None, url_is_set: bool) -> str | None:
    """A redis-cli that exists, as a command line; the wheel's before the one on the path."""
    beside = Path(sys.executable).parent / "redis-cli"
    found = str(beside) if beside.exists() else shutil.which("redis-cli")
    if found is None or (port is None and not url_is_set):
        return None
    return f"{shlex.quote(found)} -p {port}" if port is not None else f'{shlex.quote(found)} -u "$REDIS_URL"'


def _aligned(lines: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(line) for line, _ in lines)
    return [f"  {line:<{width}}  # {what}" for line, what in lines]
