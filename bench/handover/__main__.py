"""Hand-over times of leases and locks: `python -m bench.handover [--rounds N] [--kills N] [--ttl S] [--without NAME]`.

A hand-over starts at the line of code after one candidate's work. It ends at the first line of code of the next
candidate's work.
"""

import argparse
import asyncio
import sys

from bench.environments import Missing
from bench.handover.contenders import CONTENDERS
from bench.handover.group import Stuck
from bench.handover.measure import measure
from bench.handover.tables import Options
from bench.report import run
from ops.local.servers import ServerError


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def main(arguments: list[str]) -> None:
    """Measure, and print the report."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.handover",
        description="Measure the hand-over of leases and locks.",
        epilog="--json FILE: also write the report as JSON",
    )
    parser.add_argument("--rounds", type=_number, default=200, help="hand-overs by SIGTERM of each contender (200)")
    parser.add_argument("--kills", type=_number, default=30, help="hand-overs by SIGKILL of each contender (30)")
    parser.add_argument(
        "--ttl", type=int, choices=range(3, 7), default=4, help="seconds of a lease in rounds by SIGKILL (4)"
    )
    names = [each.key for each in CONTENDERS]
    parser.add_argument("--without", action="append", default=[], choices=names, help="leave this contender out")
    options, rest = parser.parse_known_args(arguments)
    contenders = tuple(each for each in CONTENDERS if each.key not in options.without)
    chosen = Options(contenders, options.rounds, options.kills, options.ttl)
    failed = False
    try:
        run(lambda: asyncio.run(measure(chosen)), rest)
    except* (Missing, ServerError, Stuck) as errors:
        for error in errors.exceptions:
            print(f"bench.handover: {error}", file=sys.stderr)
        failed = True
    if failed:
        raise SystemExit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
