"""`python -m ops.sizes`: measure what a task needs in its real containers; `make sizes` calls it."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from ops.images.engine import engine
from ops.local.fargate import SIZES
from ops.rehearse.host import configure_podman
from ops.rehearse.isolation import alone, empty, exit_status
from ops.rehearse.journal import Journal
from ops.rehearse.network import Pods, make_bridge
from ops.rehearse.versions import ROOT, Version, build
from ops.sizes.measure import SHORT, Refusal, Size, measure_refusal, measure_size
from ops.sizes.table import table
from runtime.command_line import prepare_streams

FOLDER = ROOT / ".run" / "sizes"
PORTFOLIOS = 1, 10_000, 1_000_000
STREAMS = 1000
MOST_PORTFOLIOS = 5_000_000
MOST_STREAMS = 4000
"""Maximum number of streams: each container may open 4,096 files."""


def main(arguments: Sequence[str]) -> int:
    """Measure; returns the exit status: 0 after the table, 1 if it left anything, 2 if it failed, 130 at a signal."""
    options = _options(arguments)
    return exit_status("sizes", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> int:
    empty(FOLDER)
    configure_podman(FOLDER)
    versions = build(engine({"CONTAINER_ENGINE": "podman"}), os.environ, None, _say)
    version = next(each for each in versions if each.name == "today")
    cpu = options.cpu or version.definition.cpu_units or 1024
    version = replace(version, definition=version.definition.model_copy(update={"cpu": str(cpu)}))
    journal = Journal(FOLDER / "logs", _say)
    _say(f"A task of {cpu / 1024:g} cores; logs in {FOLDER / 'logs'}")
    (sizes, refusal), left = alone(lambda: _all(version, journal, options))
    if sizes:
        print(f"\n{table(sizes, cpu)}")
    print(
        f"\nWith {SHORT} MiB, the API refused a new stream when {refusal.streams:,} were open, and kept the open ones. "
        f"{refusal.accepted_after:.1f} s after these were closed, it accepted a new stream."
    )
    if left:
        print(f"The run had not removed: {', '.join(left)}")
    return int(bool(left))


async def _all(version: Version, journal: Journal, options: argparse.Namespace) -> tuple[list[Size], Refusal]:
    await make_bridge()
    pods = Pods()
    try:
        refusal = await measure_refusal(FOLDER, version, pods, journal)
        sizes = []
        for number, portfolios in enumerate(options.portfolios, 1):
            journal.event("sizes", f"{number} of {len(options.portfolios)}: {portfolios:,} portfolios")
            sizes.append(await measure_size(FOLDER, version, pods, journal, portfolios, options.streams))
    finally:
        journal.close()
    return sizes, refusal


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.sizes", description=__doc__)
    parser.add_argument(
        "--portfolios",
        type=_numbers,
        default=PORTFOLIOS,
        metavar="'N ...'",
        help="number for each row ('1 10000 1000000')",
    )
    parser.add_argument(
        "--streams", type=_whole(MOST_STREAMS), default=STREAMS, metavar="N", help=f"number of open streams ({STREAMS})"
    )
    parser.add_argument(
        "--cpu",
        type=int,
        choices=list(SIZES),
        help="processor of the task, in 1024ths of a core (task-definition.json's)",
    )
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return [_whole(MOST_PORTFOLIOS)(word) for word in text.split()]


def _whole(most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {most:,}")
        return int(text)

    return number


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    prepare_streams()
    sys.exit(main(sys.argv[1:]))
