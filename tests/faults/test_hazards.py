"""The table of docs/hazards.md names tests that exist, and contains every test file of this folder."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = "\n".join(
    line for line in (TESTS.parent / "docs" / "hazards.md").read_text().splitlines() if line.startswith("| ")
)
NAMED = re.findall(r"`(\w[\w/]*/\w+\.py)(?:::([^`]+))?`", TABLE)


def test_every_test_that_the_hazards_table_names_exists() -> None:
    assert len(NAMED) > 30
    for file, name in NAMED:
        text = (TESTS / file).read_text()
        begins = re.split(r"\.\.\.|\[", name)[0]  # a shortened name with a case: `what_...[frozen]`
        assert re.search(rf"^(async )?def test_{re.escape(begins)}", text, re.MULTILINE), f"{file}::{name}"
        for case in re.findall(r"\[([^\]]+)\]", name):
            assert f'"{case}"' in text, f"{file}::{name}"


def test_every_test_file_of_this_folder_is_in_the_hazards_table() -> None:
    files = {f"faults/{path.name}" for path in Path(__file__).parent.glob("test_*.py")} - {"faults/test_hazards.py"}
    assert files <= {file for file, _ in NAMED}
