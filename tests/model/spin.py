"""The runner of Spin: it generates, compiles and runs the verifier of a check, and replays a violation."""

import os
import re
import resource
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.model.variants import Check

MODEL = Path(__file__).with_name("lease.pml")

_COMPILER = ("-w", "-DSAFETY", "-DNOREDUCE")  # every task sees every step, so partial-order reduction gains nothing
_SHORT = ("-DBFS", "-DMEMLIM=2000")  # breadth first: the path to a violation is as short as possible
_LONG = ("-O3", "-DCOLLAPSE", "-DMEMLIM=14000")
_RUN = ("-E",)  # a calm that has ended without a violation is not a deadlock
_RUN_LONG = ("-m1000000", "-w27")


class SpinError(Exception):
    """Spin could not run, or gave no verdict; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a check, with `seconds` of processor time.

    `story` has a line per event; empty without a violation.
    """

    states: int
    depth: int
    megabytes: float
    seconds: float
    story: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """True if the search was complete and no assertion was violated."""
        return not self.story


def missing() -> list[str]:
    """Return the required programs that are not on the path."""
    return [name for name in ("spin", "cc") if shutil.which(name) is None]


def run(check: Check) -> Verdict:
    """Run a check.

    Raises:
        SpinError: a program is missing, the model is wrong, or memory ran out before the end.
    """
    if absent := missing():
        raise SpinError(f"not on the path: {', '.join(absent)} (Debian: apt-get install spin gcc)")
    macros = [f"-D{macro}" for macro in check.macros]
    with tempfile.TemporaryDirectory(prefix="lease-model-") as name:
        folder = Path(name)
        shutil.copy(MODEL, folder)
        _call(folder, "spin", "-a", *macros, MODEL.name)
        optimize = "-O1" if check.holds else "-O0"  # for a broken rule, optimizing takes longer than the search
        _call(folder, "cc", *_COMPILER, *(_LONG if check.long else (optimize, *_SHORT)), "-o", "pan", "pan.c")
        before = _seconds()
        report = _call(folder, "./pan", *_RUN, *(_RUN_LONG if check.long else ()))
        seconds = _seconds() - before
        story: tuple[str, ...] = ()
        if (folder / f"{MODEL.name}.trail").exists():
            story = tuple(_story(_call(folder, "spin", "-t", "-T", *macros, MODEL.name)))
        elif "errors: 0" not in report or "Search not completed" in report:
            raise SpinError(f"{check.name}: no verdict:\n{report}")
    return Verdict(
        states=int(float(_number(r"([\d.e+]+) states, stored", report))),
        depth=int(_number(r"depth reached (\d+)", report)),
        megabytes=float(_number(r"([\d.]+)\s+total actual memory usage", report)),
        seconds=seconds,
        story=story,
    )


def _call(folder: Path, *command: str) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    if command[0] != "./pan" and done.returncode != 0 and "-t" not in command:
        raise SpinError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _seconds() -> float:
    """Return the processor seconds that the programs have used so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _number(pattern: str, report: str) -> str:
    found = re.search(pattern, report)
    if found is None:
        raise SpinError(f"the verifier's report cannot be parsed:\n{report}")
    return found.group(1)


def _story(trail: str) -> list[str]:
    """Return the replayed violation: a line per event, with the time in ticks and the task, and the assertion."""
    lines, now, broken = [], 0, "?"
    for line in trail.splitlines():
        text = line.strip().replace(" (term 0)", "")  # some calls and replies have no term
        if text.startswith("#processes"):
            break
        if failed := re.match(rf"spin: {MODEL.name}:(\d+), Error: assertion violated", text):
            broken = MODEL.read_text().splitlines()[int(failed.group(1)) - 1].strip().removesuffix(" }")
        elif text.startswith("spin:"):
            continue
        elif text == "tick":
            now += 1
        elif event := re.fullmatch(r"(\d): (.*)", text):
            lines.append(f"{now:3}  task {event.group(1)}   {event.group(2)}")
        elif text:
            lines.append(f"{now:3}           {text}")
    return [*lines, f"{now:3}           VIOLATED: {broken}"]
