"""`python -m bench.redis_kinds`: hand-over, time without a leader and overlap on each kind of Redis, as a table.

Rows run concurrently, since they mostly wait for ttls. The exit status is 1 if two clients believed at the same time
that they led, if the time without a leader was longer than the failover guard and one ttl together, or if a row did not
finish.
"""

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from bench.redis_kinds.servers import ABOUT, DEFAULT_TTL, EVENTS, POSSIBLE, Event
from bench.redis_kinds.trial import Broken, Row, trial
from ops.local.server import ServerError
from runtime.clock import elapsed
from runtime.command_line import prepare_streams
from tests.chaos.schedule import Redis
from tests.simulation.command_line import INTERRUPTED, Parser

Plan = tuple[Redis, Event, float]
"""A row that is still to run: kind, event, ttl."""

HEAD = """\
| Redis | event | ttl | hand-over, median (worst) | without a leader (at most) | overlap |
|---|---|---|---|---|---|"""


def line(row: Row) -> str:
    """Return a line of the table."""
    median, worst = (1000 * value for value in (statistics.median(row.hand_overs), max(row.hand_overs)))
    without = f"{f'{row.without:.1f} s' if row.without else '0, the leader stays'} ({row.bound:g} s)"
    return (
        f"| {row.redis} | {row.event} | {row.ttl:g} s | {median:.0f} ms ({worst:.0f} ms) | {without}"
        f" | {row.overlap:.3g}{'' if row.keeps else ' **GOAL MISSED**'} |"
    )


async def run(plans: list[Plan], jobs: int) -> list[Row | Broken]:
    """Run all rows, `jobs` at a time; each line of progress names its row."""
    began, free = elapsed(), asyncio.Semaphore(jobs)
    done = 0

    async def one(plan: Plan) -> Row | Broken:
        nonlocal done
        redis, event, ttl = plan

        def show_step(text: str) -> None:
            print(
                f"{elapsed() - began:6.0f} s  {done}/{len(plans)}  {redis}, {event}, ttl {ttl:g} s: {text}",
                file=sys.stderr, flush=True,
            )  # fmt: skip

        async with free:
            with tempfile.TemporaryDirectory(prefix="redis-kinds-") as folder:
                try:
                    row: Row | Broken = await trial(redis, event, ttl, Path(folder), show_step)
                except Broken as error:
                    row = error
                except (ServerError, RedisError, OSError) as error:
                    row = Broken(str(error))
            done += 1
            show_step(f"FAILED: {row}" if isinstance(row, Broken) else "done")
            return row

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(plan)) for plan in plans]
    return [task.result() for task in tasks]


def main(arguments: list[str]) -> int:
    """Print the table; returns the exit status."""
    options = _options(arguments)
    plans = [
        (redis, event, ttl)
        for redis in [Redis(kind) for kind in options.kind] or list(Redis)
        for event in [Event(name) for name in options.event] or EVENTS[redis]
        for ttl in options.ttl or [6.0, DEFAULT_TTL]
        if event in POSSIBLE[redis]
    ]
    if not plans:
        print("redis_kinds: the selected kinds of Redis have none of the selected events", file=sys.stderr)
        return 2
    try:
        rows = asyncio.run(_until_signalled(run(plans, options.jobs)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nredis_kinds: interrupted; nothing is left running", file=sys.stderr)
        return INTERRUPTED
    print(HEAD)
    for plan, row in zip(plans, rows, strict=True):
        print(line(row) if isinstance(row, Row) else f"| {plan[0]} | {plan[1]} | {plan[2]:g} s | FAILED: {row} | | |")
    return 0 if all(isinstance(row, Row) and row.keeps for row in rows) else 1


async def _until_signalled(work: Coroutine[Any, Any, list[Row | Broken]]) -> list[Row | Broken]:
    """Await the rows; SIGTERM cancels them, as Ctrl-C does."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _options(arguments: list[str]) -> argparse.Namespace:
    events = "\n".join(f"  {event:10} {about}" for event, about in ABOUT.items())
    parser = Parser(
        prog="python -m bench.redis_kinds", description=__doc__, epilog=f"events:\n{events}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--kind", action="append", choices=[str(kind) for kind in Redis], default=[], help="kind of Redis (all)"
    )
    parser.add_argument(
        "--event", action="append", choices=[str(event) for event in Event], default=[], help="event (see below)"
    )
    parser.add_argument(
        "--ttl", action="append", type=_ttl, help="LEASE_TTL in seconds (6 and 30); below 30 s the servers have"
        " short timings, otherwise their default timings",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, choices=range(1, 9), default=3, help="rows side by side (3)")
    return parser.parse_args(arguments)


def _ttl(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 3 <= value <= 120:
        raise argparse.ArgumentTypeError(f"{text} is not from 3 to 120")
    return value


if __name__ == "__main__":
    prepare_streams()
    sys.exit(main(sys.argv[1:]))
