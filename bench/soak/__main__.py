"""`python -m bench.soak`: run a soak, print its report and its verdict; `--help` names the options."""

import argparse
import asyncio
import dataclasses
import shutil
import signal
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import machine
from bench.soak.planted import LEAD, PLANTS
from ops.local.server import ServerError
from runtime.command_line import prepare_streams
from tests.simulation.command_line import INTERRUPTED, Parser

if TYPE_CHECKING:
    from bench.soak.judge import Observed

SHORTEST, LONGEST = 0.6, 1440.0
"""Minimum and maximum duration of a run in minutes; a shorter run has too few samples."""
MARK = "soak-run"
"""Name of the file that marks the folder of a run."""


def main(arguments: list[str]) -> int:
    """Return the exit status: 0 if the run kept every rule, 1 if not, 2 if it cannot start, 130 after a signal."""
    options = _options(arguments)
    folder = options.folder.absolute()
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        print(f"soak: {folder} is not empty, and is not the folder of an earlier run", file=sys.stderr)
        return 2

    from bench.docs import draw
    from bench.soak.judge import judge
    from bench.soak.report import lines_of, report
    from bench.soak.run import soak

    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        (folder / MARK).touch()
        observed = asyncio.run(_until_signalled(soak(folder, options.minutes, options.plant)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nsoak: interrupted; nothing is left running", file=sys.stderr)
        return INTERRUPTED
    except (ServerError, OSError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2
    verdict = judge(observed)
    found = dataclasses.replace(
        report(observed, verdict), machine=machine(), at=datetime.now(UTC).isoformat(timespec="minutes")
    )
    options.json.write_text(found.to_json(), encoding="utf-8")
    pictures = [options.json.parent / f"{plot.name}.svg" for plot in found.plots]
    for plot, picture in zip(found.plots, pictures, strict=True):
        draw(plot, picture)
    print(found.terminal())
    print(f"\nLogs: {folder / 'logs'}\nPlots: {' '.join(map(str, pictures))}\n\n{lines_of(verdict)}")
    return 1 if verdict.broken else 0


async def _until_signalled(run: Coroutine[None, None, "Observed"]) -> "Observed":
    """Await the run; SIGTERM cancels it, as Ctrl-C does."""
    task = asyncio.ensure_future(run)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=_minutes, default=60.0, help="duration of the load (60)")
    parser.add_argument(
        "--json", type=Path, default=Path("build/bench/soak.json"), metavar="FILE",
        help="file of the report; the plots go into the same folder (build/bench/soak.json)",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=Path(".run/soak"), help="folder for data and logs; emptied first (.run/soak)"
    )
    parser.add_argument(
        "--plant", action="append", choices=[*PLANTS, LEAD], default=[],
        help="plant a fault, which the run must find; may be given several times",
    )  # fmt: skip
    return parser.parse_args(arguments)


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not SHORTEST <= value <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text} is not from {SHORTEST:g} to {LONGEST:g}")
    return value


if __name__ == "__main__":
    prepare_streams()
    sys.exit(main(sys.argv[1:]))
