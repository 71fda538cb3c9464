"""The shell function `once` of ops/aws/README.md. A test program replaces `aws` and prints canned answers."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import botocore.validate
import pytest

from tests.ops.guide_blocks import blocks, service_model
from tests.ops.test_task_definition import DOCUMENT

ROOT = Path(__file__).parents[2]
[FUNCTION] = [
    block.text for block in blocks((ROOT / "ops/aws/README.md").read_text()) if block.text.find("once() {") >= 0
]
TASK = "arn:aws:ecs:us-west-1:000000000000:task/production/0123456789abcdef"
AWS = f"""#!{sys.executable}
import json, sys
from pathlib import Path

import jmespath

folder = Path(__file__).parent
service, operation, *options = words = sys.argv[1:]
with (folder / "calls").open("a") as calls:
    print(json.dumps(words), file=calls)
answers = json.loads((folder / "answers").read_text())
found = answers[operation]
if operation == "wait":
    sys.exit()
if "--query" in options:
    found = jmespath.search(options[options.index("--query") + 1], found)
if "text" not in options:
    print(json.dumps(found))
elif isinstance(found, list):
    for row in found if found and isinstance(found[0], list) else [found]:
        print(*row, sep="\\t")
else:
    print(found)
"""
"""Program that applies `--query` and `--output` like the aws program."""
ANSWERS: dict[str, Any] = {
    "describe-services": {
        "services": [
            {
                "taskDefinition": "arn:aws:ecs:us-west-1:000000000000:task-definition/portfolio-api:7",
                "networkConfiguration": {
                    "awsvpcConfiguration": {
                        "subnets": ["subnet-3", "subnet-4"],
                        "securityGroups": ["sg-1"],
                        "assignPublicIp": "DISABLED",
                    }
                },
            }
        ]
    },
    "describe-task-definition": {"taskDefinition": DOCUMENT},
    "run-task": {"tasks": [{"taskArn": TASK}], "failures": []},
    "wait": None,
    "filter-log-events": {"events": [{"message": "first line"}, {"message": "second line"}]},
    "describe-tasks": {
        "tasks": [
            {
                "stoppedReason": "Essential container in task exited",
                "containers": [{"name": "api", "exitCode": 0}, {"name": "sidecar", "exitCode": 3}],
            }
        ]
    },
}


class Once:
    def __init__(
        self, folder: Path, *words: str, names: str = "", answers: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        program = folder / "aws"
        program.write_text(AWS)
        program.chmod(0o755)
        (folder / "answers").write_text(json.dumps({**ANSWERS, **answers}))
        script = f'sleep() {{ :; }}\nPATH="{folder}:$PATH"\n{FUNCTION}\n{names}\nonce "$@"'
        self.ended = subprocess.run(
            ["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=False, timeout=60
        )
        self.calls = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]

    def option(self, operation: str, name: str) -> str:
        words: list[str] = next(words for words in self.calls if words[1] == operation)
        return words[words.index(f"--{name}") + 1]


def test_the_command_runs_in_the_network_of_the_service_and_its_log_is_shown(tmp_path: Path) -> None:
    once = Once(tmp_path, "api", "run", "snapshot", "--date", "2026-11-27")
    assert (once.ended.returncode, once.ended.stdout) == (0, "first line\nsecond line\n")
    assert "log group /ecs/portfolio-api, log stream task/api/0123456789abcdef" in once.ended.stderr
    given = {
        "taskDefinition": once.option("run-task", "task-definition"),
        "overrides": json.loads(once.option("run-task", "overrides")),
        "networkConfiguration": json.loads(once.option("run-task", "network-configuration")),
    }
    shape = service_model("ecs").operation_model("RunTask").input_shape
    assert botocore.validate.ParamValidator().validate(given, shape).generate_report() == ""
    assert given["taskDefinition"] == "portfolio-api", "the newest revision"
    [override] = given["overrides"]["containerOverrides"]
    assert override == {"name": "api", "command": ["run", "snapshot", "--date", "2026-11-27"]}
    assert once.option("filter-log-events", "log-stream-name-prefix") == "task/api/0123456789abcdef"


def test_the_exit_status_is_the_container_s(tmp_path: Path) -> None:
    assert Once(tmp_path, "sidecar", "step-down", "background_services").ended.returncode == 3


def test_a_container_that_never_ran_is_a_failure_with_the_reason_of_ecs(tmp_path: Path) -> None:
    stopped = {"stoppedReason": "CannotPullContainerError", "containers": [{"name": "api"}]}
    once = Once(tmp_path, "api", "migrate", answers={"describe-tasks": {"tasks": [stopped]}})
    assert once.ended.returncode == 1
    assert "CannotPullContainerError" in once.ended.stderr


def test_a_task_that_ecs_refuses_is_a_failure_with_the_reason_of_ecs(tmp_path: Path) -> None:
    refused = {"tasks": [], "failures": [{"reason": "RESOURCE:MEMORY"}]}
    once = Once(tmp_path, "api", "migrate", answers={"run-task": refused})
    assert once.ended.returncode == 1
    assert once.ended.stderr == "ECS started no task: RESOURCE:MEMORY\n"


@pytest.mark.parametrize("word", ["it's", 'a "word"', "$(false)", "a  b"])
def test_any_argument_arrives_unchanged(tmp_path: Path, word: str) -> None:
    once = Once(tmp_path, "sidecar", "disable", "background_services", "60", "--reason", word)
    [override] = json.loads(once.option("run-task", "overrides"))["containerOverrides"]
    assert override["command"][-1] == word


def test_other_names_of_the_cluster_the_service_and_the_log_work_too(tmp_path: Path) -> None:
    options = {"awslogs-group": "/copilot/portfolio-production-api-service", "awslogs-stream-prefix": "copilot"}
    task = {"containerDefinitions": [{"name": "api-service", "logConfiguration": {"options": options}}]}
    once = Once(
        tmp_path,
        "api-service",
        "migrate",
        names="CLUSTER=c SERVICE=s",
        answers={"describe-task-definition": {"taskDefinition": task}},
    )
    assert once.option("filter-log-events", "log-group-name") == "/copilot/portfolio-production-api-service"
    assert once.option("filter-log-events", "log-stream-name-prefix") == "copilot/api-service/0123456789abcdef"
    assert (once.option("run-task", "cluster"), once.option("describe-services", "services")) == ("c", "s")
