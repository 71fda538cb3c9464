"""`python -m ops.rehearse`: rehearse deploys and faults in real containers; `make rehearse` calls it."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path

from ops.images.engine import ImageError, engine
from ops.local.definition import DefinitionError
from ops.local.server import ServerError
from ops.rehearse.cgroups import groups, remove_groups, stage_group
from ops.rehearse.events import BETWEEN, USUAL, Event
from ops.rehearse.events import SHORT as SHORT_EVENTS
from ops.rehearse.host import check, configure_podman, only_one
from ops.rehearse.journal import Journal
from ops.rehearse.network import enter_private_network, namespaces, remove_namespaces
from ops.rehearse.picture import draw
from ops.rehearse.play import Record, rehearse
from ops.rehearse.podman import containers, remove_containers
from ops.rehearse.profile import LONG, SHORT
from ops.rehearse.programs import RehearsalError
from ops.rehearse.table import table
from ops.rehearse.versions import ROOT, build

INTERRUPTED = 130
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
FOLDER = ROOT / ".run" / "rehearse"


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0 if every row is as promised, 1 if not, 2 if the rehearsal cannot be held."""
    options = _options(arguments)
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        check()
        with only_one():
            return _rehearse(options)
    except (RehearsalError, ServerError, DefinitionError, ImageError) as error:
        print(f"rehearse: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nrehearse: interrupted; nothing is left", file=sys.stderr)
        return INTERRUPTED


def _rehearse(options: argparse.Namespace) -> int:
    events = _chosen(options)
    _empty(FOLDER)
    configure_podman(FOLDER)
    profile = SHORT if options.short else LONG
    first = "today" if options.old is None else "old"
    podman = engine({"CONTAINER_ENGINE": "podman"})
    versions = {version.name: version for version in build(podman, os.environ, options.old, _say)}
    enter_private_network()
    journal = Journal(FOLDER / "logs", _say)
    _say(f"Rehearsal ({profile.name}): {len(events)} events; logs in {FOLDER / 'logs'}")
    asyncio.run(_remove_all())  # what a rehearsal that was killed has left
    left: list[str] = []
    try:
        with stage_group():
            record = asyncio.run(_until_signalled(rehearse(FOLDER, profile, versions, first, events, journal)))
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        left += asyncio.run(_remove_all())
    print(f"\n{table(record.rows)}")
    picture = options.picture or FOLDER / "rehearsal.svg"
    draw(record, picture)
    print(f"Picture: {picture}")
    if left:
        print(f"The run had not removed: {', '.join(left)}")
    return 1 if left or any(row.wrong for row in record.rows) else 0


def _empty(folder: Path) -> None:
    """Remove what an earlier run has written, except the note that names the data of a Postgres that was killed."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif not path.is_dir() and path != folder / "postgres" / "private":
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def _chosen(options: argparse.Namespace) -> list[Event]:
    """The events to perform.

    Raises:
        RehearsalError: no event has one of the wanted names.
    """
    events = USUAL if options.old is None else BETWEEN
    if options.short and options.old is None:
        events = [event for event in events if event.name in SHORT_EVENTS]
    if options.events:
        events = [event for event in events if any(text in event.name for text in options.events)]
    if not events:
        raise RehearsalError(f"no event's name has {' or '.join(options.events)}; docs/rehearsal.md names the events")
    return events


async def _remove_all() -> list[str]:
    """Remove everything that a rehearsal makes; returns what of it was still there."""
    left = [*await containers(), *await namespaces()]
    await remove_containers()
    await remove_namespaces()
    await remove_groups()
    return [*left, *map(str, groups())]


async def _until_signalled(run: Coroutine[None, None, Record]) -> Record:
    """The run; the first SIGINT, SIGTERM or SIGHUP ends it, and what it made is removed."""
    task = asyncio.ensure_future(run)
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, lambda: None if task.cancelling() else task.cancel())
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(error: BaseException) -> BaseException:
    """Return the first of the errors of tasks that ended at the same time."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.rehearse", description=__doc__)
    parser.add_argument("--short", action="store_true", help="the version for CI: a lease of 6 s, fewer events")
    parser.add_argument("--old", metavar="COMMIT", help="deploy from the images of this commit to today's, and back")
    parser.add_argument(
        "--events", nargs="+", metavar="TEXT", help="only the events whose names have one of these texts"
    )
    parser.add_argument("--picture", type=Path, help="where the time line goes (.run/rehearse/rehearsal.svg)")
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
