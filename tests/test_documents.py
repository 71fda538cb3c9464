"""The documents match the code: links have targets, tables of settings are complete, and the README is short."""

import re
import subprocess
from pathlib import Path

import pytest

from runtime.version import __version__
from service.settings import Settings
from sidecar import settings as sidecar_settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
) or sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])
SETTING = re.compile(r"`([A-Z][A-Z0-9_]+)`")


def table(heading: str) -> set[str]:
    """The variables in the first column of the tables under a heading of docs/settings.md."""
    section = (ROOT / "docs/settings.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in SETTING.findall(row)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_has_a_target(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_every_setting_of_the_sidecar_is_documented() -> None:
    sources = [path.read_text() for path in Path(sidecar_settings.__file__).parent.glob("*.py")]
    read = set(
        re.findall(r'"((?:REDIS|LEASE|AWS|METRICS|CONTROL|LOG|INSTANCE)_[A-Z_]+|LEASES|CAMPAIGN)"', "".join(sources))
    )
    assert len(read) > 15
    set_by_ecs = {name for name in read if name.startswith("AWS_")} - {"AWS_REGION"}
    assert read - set_by_ecs <= table("Sidecar")


def test_every_setting_of_the_service_is_documented() -> None:
    texts = [(ROOT / "docs" / name).read_text() for name in ("settings.md", "price-sources.md")]
    documented = table("Portfolio service").union(*map(SETTING.findall, texts))
    set_by_ecs = {"ECS_AGENT_URI"}
    assert {name.upper() for name in Settings.model_fields} - set_by_ecs <= documented


def test_the_readme_has_at_most_120_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_each_image_tag_and_the_changelog_name_the_version_of_the_code() -> None:
    """The tags are immutable (deployment guide), so the tag of an older version cannot be pushed again."""
    files = ("task-definition.json", "examples/exec/task-definition.json", "compose.yaml", "ops/aws/service.yaml")
    texts = {name: (ROOT / name).read_text() for name in (*files, "docs/exec.md", "docs/deployment-guide.md")}
    tag = re.compile(r"(?:(?:portfolio-api|lease-sidecar):|\bVersion:\n +Type: String\n +Default: )([0-9]+\.[0-9.]+)\b")
    assert {name: set(tag.findall(text)) for name, text in texts.items()} == {name: {__version__} for name in texts}
    assert re.findall(r"^## ([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == __version__
