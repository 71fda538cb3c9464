"""`python -m tests.simulation`: simulate a number of hours, and print a summary."""

import argparse
import time
from collections.abc import Callable

from tests.simulation.command_line import Parser, exit_with
from tests.simulation.report import table
from tests.simulation.run import Choice, Progress, run, story
from tests.simulation.scenario import MIXES

STORIES = 3
"""Maximum number of violations whose last events are printed."""


def between(kind: type[int] | type[float], least: float, most: float) -> Callable[[str], float]:
    """Return a parser for a command-line number of this kind from `least` to `most`; it refuses any other text."""

    def number(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least:g} and {most:g}")
        return value

    return number


def main() -> int:
    """Simulate, print the summary, and return the exit status: 1 if a promise was broken."""
    parser = Parser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument(
        "--hours", type=between(float, 0.01, 1e9), default=100_000, help="simulated hours (default: 100000)"
    )
    parser.add_argument("--seed", default="1", help="any word; the same word gives the same run (default: 1)")
    parser.add_argument("--mix", choices=sorted(MIXES), help="only worlds with these faults")
    parser.add_argument("--ttl", type=between(float, 1, 3600), help="only worlds with this ttl, in seconds")
    parser.add_argument("--processes", type=between(int, 1, 256), help="processes to run on (default: one per core)")
    parser.add_argument("--world", type=between(int, 0, 10**9), help="print the last events of this world of the seed")
    options = parser.parse_args()
    choice = Choice(options.seed, options.mix, options.ttl)
    if options.world is not None:
        violation, lines = story(choice, options.world)
        print("\n".join(lines))
        return int(violation is not None)
    began = time.monotonic()
    total = run(choice, options.hours, processes=options.processes, progress=Progress())
    took = time.monotonic() - began
    print(table(total))
    print(f"{'took':34}{took:>12,.0f} s\n{'simulated hours per second':34}{total.hours / took:>14,.0f}")
    for result in total.violations[:STORIES]:
        only = "".join(f" --{name} {value}" for name, value in (("mix", choice.mix), ("ttl", choice.ttl)) if value)
        print(f"\nWorld {result.index} of seed {choice.seed} ({result.mix}): {result.law}. Repeat it with:")
        print(f"  python -m tests.simulation --seed {choice.seed}{only} --world {result.index}\n")
        print("\n".join(story(choice, result.index)[1]))
    return int(bool(total.violations))


if __name__ == "__main__":
    exit_with("simulate", main)
