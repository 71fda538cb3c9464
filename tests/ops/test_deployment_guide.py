"""docs/deployment-guide.md: the local commands run with a real `make run`; the AWS commands match botocore's models."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.ops.cloudformation import load
from tests.ops.guide_blocks import OF_COPILOT, Block, aws_commands, blocks, copilot_commands, unknown_options
from tests.ops.test_run import Run

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/deployment-guide.md").read_text()
STACK = (ROOT / "ops/aws/README.md").read_text()
REDIS = (ROOT / "docs/redis.md").read_text()
MARKS = {"", "start", "aws", "copilot", "docker"}
CURL = """
curl() { "$PYTHON" -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[-1]).read().decode())' "$@"; }
"""
"""A replacement for curl on a machine without it."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_local_block_runs_with_make_run_and_prints_what_the_guide_shows(tmp_path: Path) -> None:
    ran = [block for block in blocks(GUIDE) if not block.mark]
    assert len(ran) >= 15
    run = Run(tmp_path)
    try:
        run.until_shown("What happens")
        output = outputs(run, ran)
        for block in ran:
            rest = output[block.line]
            for text in block.wanted:
                assert text in rest, f"line {block.line}: no {text!r} in {output[block.line]!r}"
                rest = rest.split(text, 1)[1]
        run.until_led()
    finally:
        run.process.terminate()
        run.process.wait(60)


def outputs(run: Run, ran: list[Block]) -> dict[int, str]:
    """Return the output of each block, by its line; the script ends at the first failing command."""

    def to_local_address(text: str) -> str:
        text = re.sub(r"\b(4040|8080|8180|9101|9102|9202)\b", lambda port: str(int(port[1]) + run.offset), text)
        text = text.replace("$PWD/.venv/bin", str(Path(sys.executable).parent))
        return text.replace(".run/", f"{run.folder}/")

    script = [f"set -eu -o pipefail\nPYTHON={sys.executable}", "" if shutil.which("curl") else CURL]
    script += [f"printf '\\n@@@ {block.line}\\n'\n{to_local_address(block.text)}" for block in ran]
    ended = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout[-3000:]
    parts = re.split(r"^@@@ (\d+)\n", ended.stdout, flags=re.MULTILINE)
    return dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))


def test_each_block_that_is_not_run_is_marked_with_its_requirement() -> None:
    for document in (GUIDE, STACK, REDIS):
        assert {block.mark for block in blocks(document)} <= MARKS
        assert document.count("```bash") == len(list(blocks(document)))
    for block in blocks(GUIDE):
        if re.search(r"\b(aws|copilot|docker) ", block.text):
            assert block.mark in ("aws", "copilot", "docker"), block.line


@pytest.mark.parametrize(("document", "least"), [(GUIDE, 8), (STACK, 8), (REDIS, 5)])
def test_each_aws_command_has_a_valid_operation_and_valid_options(document: str, least: int) -> None:
    found = [words for block in blocks(document) for words in aws_commands(block.text)]
    assert len(found) >= least
    for words in found:
        assert unknown_options(words) == set(), words


def test_each_copilot_command_has_options_of_copilot_s_documentation() -> None:
    manifest = (ROOT / "ops/copilot/manifest.yml").read_text()
    found = [command for text in (GUIDE, manifest) for command in copilot_commands(text)]
    assert {command for command, _ in found} == OF_COPILOT.keys()
    for command, options in found:
        assert options <= OF_COPILOT[command], command


def test_a_wrong_option_is_found() -> None:
    [words] = aws_commands('aws ecs run-task --cluster production --overides "x"')
    assert unknown_options(words) == {"overides"}


def test_each_alarm_and_each_reference_of_the_guide_names_an_existing_section() -> None:
    headings = set(re.findall(r"^#+ (.+)$", GUIDE, re.MULTILINE))
    alarms = [entry for entry in load()["Resources"].values() if entry["Type"].endswith("::Alarm")]
    for alarm in alarms:
        description = alarm["Properties"]["AlarmDescription"]
        [section] = re.findall(r'docs/deployment-guide\.md, "([^"]+)"', description)
        assert section in headings, description
    named = re.findall(r'"([A-Z][a-z][^"\n]+)", below', GUIDE)
    assert len(named) >= 3
    assert set(named) <= headings


def test_each_alert_leads_to_an_existing_section() -> None:
    table = GUIDE.split("### Section for each alert")[1].split("\n## ")[0]
    rules = yaml.safe_load((ROOT / "ops/prometheus/rules.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    rows = re.findall(r'^\| ((?:`\w+`(?:, )?)+) \| "([^"]+)" \|$', table, re.MULTILINE)
    assert {name for names, _ in rows for name in re.findall(r"`(\w+)`", names)} == alerts
    assert {section for _, section in rows} <= set(re.findall(r"^### (.+)$", GUIDE, re.MULTILINE))


def test_each_one_off_task_runs_an_existing_command() -> None:
    commands = {
        tuple(words.split()[:2])
        for document in (GUIDE, STACK)
        for words in re.findall(r"\bonce ((?:sidecar|api) [a-z].*?)[`\n]", document)
    }
    assert len(commands) >= 7
    programs = {"sidecar": "sidecar", "api": "service"}
    for container, word in commands:
        shown = subprocess.run(
            [sys.executable, "-m", programs[container], "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        assert re.search(rf"^  {word}\b", shown, re.MULTILINE), (container, word)


def test_each_document_in_a_reference_exists() -> None:
    for document, folder in ((GUIDE, ROOT / "docs"), (STACK, ROOT / "ops/aws")):
        for target in re.findall(r"\]\(([^)#]+)\)", document):
            assert target.startswith("https://") or (folder / target).exists(), target
