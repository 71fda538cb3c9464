"""`python -m bench.tracker [PORTFOLIOS ...] [--json FILE]`: measure each number of portfolios and print the report."""

import argparse
import sys

import uvloop

from bench.report import Report, run
from bench.tracker.plain import SAMPLE
from bench.tracker.size import measure_size
from bench.tracker.tables import report


def measure(numbers: list[int]) -> Report:
    """Measure the smallest number first, since the maximum memory of a process never decreases."""
    return report([uvloop.run(measure_size(number)) for number in sorted(numbers)])  # the service also uses uvloop


def portfolios(text: str) -> int:
    """Return the number of portfolios in an argument."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < SAMPLE:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {SAMPLE}")
    return number


def main(arguments: list[str]) -> None:
    """Parse the numbers and leave the rest to `bench.report`."""
    parser = argparse.ArgumentParser(prog="python -m bench.tracker", description="Measure ticks, loading and EOD.")
    parser.add_argument(
        "portfolios",
        nargs="*",
        type=portfolios,
        default=[100_000],
        help=f"numbers of portfolios, at least {SAMPLE} each",
    )
    options, rest = parser.parse_known_args(arguments)
    run(lambda: measure(options.portfolios), rest)


if __name__ == "__main__":
    main(sys.argv[1:])
