"""`python -m tests.mutants`: break the product on purpose, one bug at a time. Each bug must be found.

The simulation must find the bugs of `tests/simulation/mutants.py`. Each bug of `tests/mutants/bugs.py` names a test of
the real code that must find the bug. These tests must pass without a bug.
"""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.bugs import BUGS
from tests.mutants.trial import ROOT, Bug, Verdict, attempt, copy
from tests.simulation import mutants
from tests.simulation.command_line import Parser, exit_with

AT_ONCE = 4
"""Number of concurrent test runs for each process of `--processes`. A run mostly waits."""
SOUND_TESTS = 50
"""Number of tests in one run without a bug."""


def main() -> int:
    """Return the exit status: 1 if a bug was not found, else 0."""
    parser = Parser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--seed", default="1", help="seed of the simulated worlds (default: 1)")
    parser.add_argument("--processes", type=int, help="processes to simulate on (default: one per core)")
    options = parser.parse_args()
    processes = options.processes or len(os.sched_getaffinity(0))
    print(f"{'seeded bug':66}{'in':30}{'hours':>9}{'s':>7}  found by")
    survived = 0
    for found in mutants.find_all(options.seed, processes):
        by = f"{found.law}: {found.mix}, world {found.world}" if found.law else "SURVIVED"
        print(f"{found.name:66}{'the simulation':30}{found.hours:9,.1f}{found.seconds:7.1f}  {by}", flush=True)
        survived += found.law is None
    outputs = []
    for bug, attempts, verdict in _try_all(AT_ONCE * processes):
        by = bug.test if verdict.failed else "SURVIVED" if verdict.passed else "NOT RUN"
        second = ", at the second attempt" if verdict.failed and attempts > 1 else ""
        print(f"{bug.name:66}{bug.file:30}{'':9}{verdict.seconds:7.1f}  {by}{second}", flush=True)
        if not verdict.failed:
            outputs.append(f"\n{bug.name}: {bug.test}\n{verdict.output}")
    print(*outputs, sep="\n")
    survived += len(outputs)
    print(f"{len(mutants.MUTANTS) + len(BUGS)} bugs, {survived} survived")
    return int(survived > 0)


def _try_all(at_once: int) -> Iterator[tuple[Bug, int, Verdict]]:
    """Yield each bug in order, with its number of attempts and its verdict, from `at_once` concurrent runs.

    A test may depend on timing, which a busy machine changes. So a bug that is not found is tried once more, and a test
    that fails without a bug is repeated once.

    Raises:
        SystemExit: a test fails without a bug.
    """

    def find(source: Path, bug: Bug) -> tuple[Bug, int, Verdict]:
        verdict = attempt(source, [bug.test], bug)
        return (bug, 1, verdict) if verdict.failed else (bug, 2, attempt(source, [bug.test], bug))

    with tempfile.TemporaryDirectory(prefix="mutants-") as name, ThreadPoolExecutor(at_once) as pool:
        source = Path(name)
        copy(ROOT, source)  # the files may be edited during the run
        tests = list(dict.fromkeys(bug.test for bug in BUGS))
        parts = [tests[first : first + SOUND_TESTS] for first in range(0, len(tests), SOUND_TESTS)]
        sound = [pool.submit(attempt, source, part, reruns=1) for part in parts]
        yield from pool.map(lambda bug: find(source, bug), BUGS)
        for verdict in (run.result() for run in sound):
            if not verdict.passed:
                raise SystemExit(f"The tests fail without a bug:\n{verdict.output}")


if __name__ == "__main__":
    exit_with("mutants", main)
