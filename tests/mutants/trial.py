"""A bug in a production module and the test that must find it; the test runs in a copy of the project."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
COPIED = (
    "bench", "docs", "examples", "ops", "runtime", "service", "sidecar", "supabase", "tests", "pyproject.toml",
    "task-definition.json",
)  # fmt: skip
PLUGINS = ("pytest_asyncio.plugin", "pytest_timeout", "pytest_rerunfailures")
"""Plugins that the tests need: loading every installed plugin takes longer than most tests."""
TEST_LIMIT, LIMIT = 60, 600
"""Timeouts of a test and of a pytest run, in seconds; `make mutants` makes several runs at the same time."""


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug: the text `right`, in exactly one place of `file`, becomes `wrong`; `test` must then fail."""

    name: str
    file: str
    right: str
    wrong: str
    test: str

    def put_into(self, folder: Path) -> None:
        """Break the copy of the project in `folder`.

        Raises:
            ValueError: the file does not contain `right` exactly once.
        """
        path = folder / self.file
        text = path.read_text()
        if (count := text.count(self.right)) != 1:
            raise ValueError(f"{self.name}: {self.right!r} occurs {count} times in {self.file}, not once")
        path.unlink()  # other folders may share the file
        path.write_text(text.replace(self.right, self.wrong))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a pytest run: the tests `failed` or `passed`; neither if they could not run or did not finish."""

    failed: bool
    passed: bool
    seconds: float
    output: str


def copy(source: Path, target: Path, copy_file: Callable[[str, str], object] = shutil.copy2) -> None:
    """Copy the files that the tests need, with their compiled code."""
    for name in COPIED:
        if (source / name).is_dir():
            ignored = shutil.ignore_patterns("*.pyc.*")
            shutil.copytree(source / name, target / name, ignore=ignored, copy_function=copy_file)
        else:
            copy_file(str(source / name), str(target / name))


def attempt(source: Path, tests: list[str], bug: Bug | None = None, *, reruns: int = 0) -> Verdict:
    """Run the tests in a folder with the files of `source`, with the bug if there is one.

    The folder contains hard links, so `source` must be on the same file system. A failed test is repeated at most
    `reruns` times.
    """
    with TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        # Copies would take a second of processor time. Hard links suffice: Python replaces a file of compiled code and
        # never writes into it.
        copy(source, folder, os.link)
        if bug is not None:
            bug.put_into(folder)
        return _run(folder, [f"--reruns={reruns}", *tests], len(tests))


def _run(folder: Path, arguments: list[str], expected: int) -> Verdict:
    report = folder / "report.xml"
    plugins = [word for plugin in PLUGINS for word in ("-p", plugin)]
    options = ["-o", "addopts=", "-q", "-x", "--tb=short", f"--timeout={TEST_LIMIT}"]  # addopts loads more plugins
    options += ["-p", "no:cacheprovider", f"--junitxml={report}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *plugins, *options, *arguments],
        cwd=folder,
        env=environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # including the sidecars that it started
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            output = f"not finished within {LIMIT} s"
    seconds = time.monotonic() - began
    cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    failed = process.returncode == 1 and any(case.find("failure") is not None for case in cases)
    return Verdict(failed, process.returncode == 0 and len(cases) >= expected, seconds, output)
