"""`python -m tests.chaos`: a chaos run, its verdict and its picture; `--help` names the options."""

import argparse
import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING

from ops.local.server import ServerError
from sidecar.settings import SettingsError
from sidecar.settings import read as read_sidecar_settings
from tests.chaos.schedule import OPERATOR, POSTGRES, REDIS_OF, TASK, Kind, Redis, plan
from tests.simulation.command_line import INTERRUPTED, Parser

if TYPE_CHECKING:
    from tests.chaos.run import Record

MARK = "chaos-run"
"""Name of the file that marks the folder of a run."""
PICTURES = ".svg", ".png", ".pdf"


def main(arguments: list[str]) -> int:
    """Return the exit status: 0 if every promise was kept, 1 if not, 2 if the run cannot start.

    After Ctrl-C or SIGTERM the status is `INTERRUPTED`.
    """
    options = _options(arguments)
    redis = Redis(options.redis)
    rounds = plan(
        options.seed,
        options.minutes,
        options.tasks,
        options.ttl,
        isolating=options.isolating,
        redis=redis,
        only=[Kind(kind) for kind in options.only],
    )
    if options.plan:
        for each in rounds:
            print(f"round {each.number}: a storm of {each.seconds:.0f} s, then {each.calm}")
            for fault in each.faults:
                print(f"  {fault.at:6.2f}  {fault}")
        return 0

    from tests.chaos.picture import draw
    from tests.chaos.report import verdict
    from tests.chaos.run import chaos

    services = (options.tasks + 1) // 2 if options.services is None else options.services
    folder = Path(options.folder or f".run/chaos/{options.seed}").absolute()
    try:
        given = {"MIN_REPLICAS": os.environ.get("MIN_REPLICAS") or str(int(options.isolating))}
        min_replicas = read_sidecar_settings(given).min_replicas
    except SettingsError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    if not _make_empty(folder):
        print(f"chaos: {folder} is not empty, and is not the folder of an earlier run", file=sys.stderr)
        return 2
    print(
        f"Chaos: {options.tasks} tasks ({services} with the product's API, {options.tasks - services} with a client"
        f" that only writes), Redis: {redis}, lease of {options.ttl:g} s, rounds: {len(rounds)}, SEED={options.seed};"
        f" logs in {folder}",
        flush=True,
    )
    run = chaos(
        folder,
        rounds,
        seed=options.seed,
        tasks=options.tasks,
        ttl=options.ttl,
        services=services,
        fence=not options.without_fence,
        min_replicas=min_replicas,
        other_version=options.other_version,
        redis=redis,
        print_line=lambda text: print(text, flush=True),
    )
    try:
        record = asyncio.run(_until_signalled(run))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nchaos: interrupted; no process is left running", file=sys.stderr)
        return INTERRUPTED
    except ServerError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    print(verdict(record))
    picture = options.picture or folder / "run.svg"
    draw(record, picture)
    print(f"Picture: {picture}")
    return 1 if record.violations else 0


async def _until_signalled(run: Coroutine[None, None, "Record"]) -> "Record":
    """Await the run; SIGTERM ends the run cleanly, as Ctrl-C does."""
    task = asyncio.ensure_future(run)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _make_empty(folder: Path) -> bool:
    """Make an empty folder, deleting the files of an earlier run.

    Returns False, and deletes nothing, if the folder has files but not the file `MARK`.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        return False
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    return True


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=_positive, default=10.0, help="approximate duration (10)")
    parser.add_argument("--tasks", type=int, choices=range(2, 10), default=4, help="number of tasks (4)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the schedule of faults (1)")
    parser.add_argument(
        "--ttl", type=_positive, default=6.0, help="LEASE_TTL in seconds; the other times follow from it (6)"
    )
    parser.add_argument("--services", type=int, help="number of tasks that run the product's API (half of them)")
    parser.add_argument(
        "--isolating", action="store_true", help="cut off primaries that still serve; sets MIN_REPLICAS=1"
    )
    parser.add_argument(
        "--redis", choices=[str(kind) for kind in Redis], default=str(Redis.SERVER), help="kind of Redis (server)"
    )
    parser.add_argument(
        "--only", action="append", choices=[str(kind) for kind in Kind], default=[], metavar="FAULT",
        help="cause only this fault in the storms; the option may be repeated (--plan prints the names of faults)",
    )  # fmt: skip
    parser.add_argument("--without-fence", action="store_true", help="let stale leaders write; the run must find this")
    parser.add_argument(
        "--other-version", type=_checkout, metavar="FOLDER", help="another checkout; every second task runs it"
    )
    parser.add_argument("--picture", type=Path, help="file of the picture, .svg, .png or .pdf (FOLDER/run.svg)")
    parser.add_argument("--folder", help="folder for data, logs and diaries, emptied at the start (.run/chaos/SEED)")
    parser.add_argument("--plan", action="store_true", help="only print the schedule")
    options = parser.parse_args(arguments)
    if options.services is not None and not 0 <= options.services <= options.tasks:
        parser.error(f"argument --services: {options.services} is not between 0 and --tasks ({options.tasks})")
    if options.isolating and options.redis != Redis.SERVER:
        parser.error("argument --isolating: needs --redis server")
    possible = TASK.keys() | REDIS_OF[Redis(options.redis)].keys() | POSTGRES.keys() | OPERATOR.keys()
    if elsewhere := [kind for kind in options.only if kind not in possible]:
        parser.error(f"argument --only: --redis {options.redis} has no fault {elsewhere[0]!r}")
    if options.picture and options.picture.suffix not in PICTURES:
        parser.error(f"argument --picture: {options.picture} does not end in one of {', '.join(PICTURES)}")
    if options.picture and not os.access(options.picture.absolute().parent, os.W_OK):
        parser.error(f"argument --picture: {options.picture.parent} cannot be written")
    return options


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value < 100_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 100,000")
    return value


def _checkout(text: str) -> Path:
    folder = Path(text).resolve()
    if not (folder / "task-definition.json").is_file():
        raise argparse.ArgumentTypeError(f"{text} is not a checkout of this project: it has no task-definition.json")
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
