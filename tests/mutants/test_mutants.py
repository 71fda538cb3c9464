"""Every bug still applies, and counts as found only if its test fails. `make mutants` runs all of them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import example_bugs
from tests.mutants.bugs import BUGS
from tests.mutants.trial import COPIED, ROOT, Bug, attempt
from tests.simulation.mutants import MUTANTS, Mutant


def test_each_bug_applies_and_leaves_a_valid_program(tmp_path: Path) -> None:
    for bug in [*BUGS, *example_bugs.BUGS]:
        broken = tmp_path / bug.name.replace("/", " ") / bug.file
        broken.parent.mkdir(parents=True)
        broken.write_text((ROOT / bug.file).read_text())
        bug.put_into(tmp_path / bug.name.replace("/", " "))
        if broken.suffix == ".py":
            ast.parse(broken.read_text())
    options = ["--isolated", "--select", "F821", "--target-version", "py311", "--output-format", "concise"]
    command = [sys.executable, "-m", "ruff", "check", *options, str(tmp_path)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, f"a bug uses a name that does not exist: {checked.stdout}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_simulated_bug_applies(mutant: Mutant) -> None:
    before = [getattr(owner, attribute) for owner, attribute, _ in mutant.replaced]
    with mutant.applied():
        for owner, attribute, substitute in mutant.replaced:
            assert getattr(owner, attribute) is substitute
    assert [getattr(owner, attribute) for owner, attribute, _ in mutant.replaced] == before


def test_each_bug_is_unique_and_its_test_exists(request: pytest.FixtureRequest) -> None:
    assert len({(bug.file, bug.right, bug.wrong) for bug in BUGS}) == len({bug.name for bug in BUGS}) == len(BUGS)
    here = {item.nodeid for item in request.session.items}
    here |= {name.partition("[")[0] for name in here}
    # The tests that this session does not collect: all tests if this file runs alone, otherwise the slow tests.
    elsewhere = sorted({bug.test for bug in BUGS} - here)
    if not elsewhere:
        return
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *elsewhere]
    collected = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert collected.returncode == 0, collected.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one rule and its tests."""
    for name in COPIED:
        if "." not in name:
            (tmp_path / name).mkdir()
    (tmp_path / "task-definition.json").touch()
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    (tmp_path / "sidecar/law.py").write_text("LIMIT = 5\n")
    (tmp_path / "tests/test_law.py").write_text(
        "from sidecar.law import LIMIT\n\n"
        "def test_the_limit() -> None:\n    assert LIMIT == 5\n\n"
        "def test_that_there_is_one() -> None:\n    assert LIMIT\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("wrong", "test", "failed", "passed"),
    [
        ("LIMIT = 6", "the_limit", True, False),
        ("LIMIT = 6", "that_there_is_one", False, True),
        ("LIMIT = (", "the_limit", False, False),
        ("LIMIT = 6", "no_such_thing", False, False),
        ("LIMIT = 5", "the_limit", False, True),
    ],
    ids=["found", "survives", "no program", "no such test", "no bug"],
)
def test_a_bug_is_found_if_its_test_fails_but_not_if_its_test_cannot_run(
    project: Path, wrong: str, test: str, failed: bool, passed: bool
) -> None:
    bug = Bug("another limit", "sidecar/law.py", "LIMIT = 5", wrong, f"tests/test_law.py::test_{test}")
    verdict = attempt(project, [bug.test], bug)
    assert (verdict.failed, verdict.passed) == (failed, passed), verdict.output
    assert (project / "sidecar/law.py").read_text() == "LIMIT = 5\n"


def test_a_bug_that_no_longer_applies_is_an_error(project: Path) -> None:
    for right in ("LIMIT = 4", "I"):
        with pytest.raises(ValueError, match="not once"):
            attempt(project, ["tests/test_law.py"], Bug("stale", "sidecar/law.py", right, "", "tests/test_law.py"))
