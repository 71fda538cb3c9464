"""`python -m ops.rehearse`: rehearse deploys and faults in real containers; `make rehearse` calls it."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ops.images.engine import engine
from ops.rehearse.events import BETWEEN, USUAL, Event
from ops.rehearse.events import SHORT as SHORT_EVENTS
from ops.rehearse.host import configure_podman
from ops.rehearse.isolation import alone, empty, exit_status
from ops.rehearse.journal import Journal
from ops.rehearse.picture import draw
from ops.rehearse.play import rehearse
from ops.rehearse.profile import LONG, SHORT
from ops.rehearse.programs import RehearsalError
from ops.rehearse.table import table
from ops.rehearse.versions import ROOT, build
from runtime.command_line import prepare_streams

FOLDER = ROOT / ".run" / "rehearse"


def main(arguments: Sequence[str]) -> int:
    """Rehearse; returns the exit status.

    It is 0 if every row meets the promises and nothing is left behind, 1 if not, 2 if the rehearsal cannot run, and 130
    at a signal.
    """
    options = _options(arguments)
    return exit_status("rehearse", lambda: _rehearse(options))


def _rehearse(options: argparse.Namespace) -> int:
    events = _chosen(options)
    empty(FOLDER)
    configure_podman(FOLDER)
    profile = SHORT if options.short else LONG
    first = "today" if options.old is None else "old"
    podman = engine({"CONTAINER_ENGINE": "podman"})
    versions = {version.name: version for version in build(podman, os.environ, options.old, _say)}
    journal = Journal(FOLDER / "logs", _say)
    _say(f"Rehearsal ({profile.name}): {len(events)} events; logs in {FOLDER / 'logs'}")
    record, left = alone(lambda: rehearse(FOLDER, profile, versions, first, events, journal))
    print(f"\n{table(record.rows)}")
    picture = options.picture or FOLDER / "rehearsal.svg"
    draw(record, picture)
    print(f"Picture: {picture}")
    if left:
        print(f"The run had not removed: {', '.join(left)}")
    return 1 if left or any(row.wrong for row in record.rows) else 0


def _chosen(options: argparse.Namespace) -> list[Event]:
    """Return the events to perform.

    Raises:
        RehearsalError: no event's name contains any of the wanted texts.
    """
    events = USUAL if options.old is None else BETWEEN
    if options.short and options.old is None:
        events = [event for event in events if event.name in SHORT_EVENTS]
    if options.events:
        events = [event for event in events if any(text in event.name for text in options.events)]
    if not events:
        raise RehearsalError(
            f"no event name contains {' or '.join(options.events)}; docs/rehearsal.md lists the events"
        )
    return events


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.rehearse", description=__doc__)
    parser.add_argument("--short", action="store_true", help="the short rehearsal for CI: a lease of 6 s, fewer events")
    parser.add_argument("--old", metavar="COMMIT", help="deploy from the images of this commit to today's, and back")
    parser.add_argument(
        "--events", nargs="+", metavar="TEXT", help="only the events whose names contain one of these texts"
    )
    parser.add_argument("--picture", type=Path, help="file of the time line (.run/rehearse/rehearsal.svg)")
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    prepare_streams()
    sys.exit(main(sys.argv[1:]))
