"""The shell functions of ops/aws/README.md. A test program replaces `aws` and prints canned answers."""

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
FUNCTIONS = "\n".join(block.text for block in blocks((ROOT / "ops/aws/README.md").read_text()) if "() {" in block.text)
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
if found == "refused":
    sys.exit("An error occurred (ExpiredTokenException)")
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
    "register-task-definition": {"taskDefinition": {"revision": 8}},
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


class Ran:
    """A shell function that has ended, and the calls of `aws` that it made."""

    def __init__(
        self, folder: Path, *words: str, names: str = "", answers: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        program = folder / "aws"
        program.write_text(AWS)
        program.chmod(0o755)
        (folder / "answers").write_text(json.dumps({**ANSWERS, **answers}))
        script = f'sleep() {{ :; }}\nPATH="{folder}:$PATH"\n{FUNCTIONS}\n{names}\n"$@"'
        self.ended = subprocess.run(
            ["bash", "-c", script, "bash", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60
        )
        calls = folder / "calls"
        self.calls = [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    @property
    def operations(self) -> list[str]:
        return [words[1] for words in self.calls]

    def option(self, operation: str, name: str) -> str:
        words: list[str] = next(words for words in self.calls if words[1] == operation)
        return words[words.index(f"--{name}") + 1]


def test_the_command_runs_in_the_network_of_the_service_and_its_log_is_shown(tmp_path: Path) -> None:
    once = Ran(tmp_path, "once", "api", "run", "snapshot", "--date", "2026-11-27")
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
    assert Ran(tmp_path, "once", "sidecar", "step-down", "background_services").ended.returncode == 3


def test_a_container_that_never_ran_is_a_failure_with_the_reason_of_ecs(tmp_path: Path) -> None:
    stopped = {"stoppedReason": "CannotPullContainerError", "containers": [{"name": "api"}]}
    once = Ran(tmp_path, "once", "api", "migrate", answers={"describe-tasks": {"tasks": [stopped]}})
    assert once.ended.returncode == 1
    assert "CannotPullContainerError" in once.ended.stderr


def test_a_task_that_ecs_refuses_is_a_failure_with_the_reason_of_ecs(tmp_path: Path) -> None:
    refused = {"tasks": [], "failures": [{"reason": "RESOURCE:MEMORY"}]}
    once = Ran(tmp_path, "once", "api", "migrate", answers={"run-task": refused})
    assert once.ended.returncode == 1
    assert once.ended.stderr == "ECS started no task: RESOURCE:MEMORY\n"


@pytest.mark.parametrize("word", ["it's", 'a "word"', "$(false)", "a  b"])
def test_any_argument_arrives_unchanged(tmp_path: Path, word: str) -> None:
    once = Ran(tmp_path, "once", "sidecar", "disable", "background_services", "60", "--reason", word)
    [override] = json.loads(once.option("run-task", "overrides"))["containerOverrides"]
    assert override["command"][-1] == word


def test_other_names_of_the_cluster_the_service_and_the_log_work_too(tmp_path: Path) -> None:
    options = {"awslogs-group": "/copilot/portfolio-production-api-service", "awslogs-stream-prefix": "copilot"}
    task = {"containerDefinitions": [{"name": "api-service", "logConfiguration": {"options": options}}]}
    once = Ran(
        tmp_path,
        "once",
        "api-service",
        "migrate",
        names="CLUSTER=c SERVICE=s",
        answers={"describe-task-definition": {"taskDefinition": task}},
    )
    assert once.option("filter-log-events", "log-group-name") == "/copilot/portfolio-production-api-service"
    assert once.option("filter-log-events", "log-stream-name-prefix") == "copilot/api-service/0123456789abcdef"
    assert (once.option("run-task", "cluster"), once.option("describe-services", "services")) == ("c", "s")


def test_a_service_that_does_not_exist_is_a_failure_that_names_it(tmp_path: Path) -> None:
    """ECS answers with no service, and `aws` exits with 0."""
    unknown = {"services": [], "failures": [{"reason": "MISSING"}]}
    once = Ran(tmp_path, "once", "sidecar", "leaders", answers={"describe-services": unknown})
    assert once.ended.returncode == 1
    assert once.ended.stderr == "no service api-service in cluster production\n"
    assert set(once.operations) == {"describe-services"}


def described(*containers: tuple[str, str]) -> Mapping[str, Any]:
    """Return the answer of ECS that describes a task definition with these containers (name, image)."""
    definitions = [{"name": name, "image": image} for name, image in containers]
    return {"describe-task-definition": {"taskDefinition": {**DOCUMENT, "containerDefinitions": definitions}}}


def test_the_next_revision_is_valid_for_ecs_and_has_the_new_tag(tmp_path: Path) -> None:
    added = (
        "taskDefinitionArn",
        "revision",
        "status",
        "requiresAttributes",
        "compatibilities",
        "registeredAt",
        "registeredBy",
    )
    answers = {"describe-task-definition": {"taskDefinition": DOCUMENT | dict.fromkeys(added, "of ECS")}}
    ran = Ran(tmp_path, "next_revision", "0.3.0", answers=answers)
    assert (ran.ended.returncode, ran.ended.stdout) == (0, "8\n")
    expected = json.dumps(DOCUMENT)
    for container in DOCUMENT["containerDefinitions"]:
        expected = expected.replace(container["image"], f"{container['image'].rpartition(':')[0]}:0.3.0")
    assert json.loads(ran.option("register-task-definition", "cli-input-json")) == json.loads(expected)
    assert {path.name for path in tmp_path.iterdir()} == {"aws", "answers", "calls"}, "no file is left"


def test_the_next_revision_keeps_the_image_of_every_other_container(tmp_path: Path) -> None:
    collector = "public.ecr.aws/aws-observability/aws-otel-collector:v0.43.0"
    answers = described(("api", "host:5000/portfolio-api:0.2.0"), ("sidecar", "s:0.2.0"), ("collector", collector))
    ran = Ran(tmp_path, "next_revision", "0.3.0", answers=answers)
    registered = json.loads(ran.option("register-task-definition", "cli-input-json"))
    images = [container["image"] for container in registered["containerDefinitions"]]
    assert images == ["host:5000/portfolio-api:0.3.0", "s:0.3.0", collector]


@pytest.mark.parametrize("image", [f"host/s:0.2.0@sha256:{'ab' * 32}", f"host/s@sha256:{'ab' * 32}", "host:5000/s"])
def test_an_image_without_a_tag_or_with_a_digest_registers_nothing(tmp_path: Path, image: str) -> None:
    ran = Ran(tmp_path, "next_revision", "0.3.0", answers=described(("api", "api:0.2.0"), ("sidecar", image)))
    assert ran.ended.returncode == 1
    assert ran.ended.stderr == f"next_revision: an image without a tag, or with a digest: {image}\n"
    assert ran.operations == ["describe-task-definition"]


def test_a_task_definition_without_the_sidecar_registers_nothing(tmp_path: Path) -> None:
    ran = Ran(tmp_path, "next_revision", "0.3.0", answers=described(("api", "api:0.2.0"), ("other", "s:0.2.0")))
    assert ran.ended.returncode == 1
    assert ran.ended.stderr == "next_revision: the task definition has no container sidecar\n"
    assert ran.operations == ["describe-task-definition"]


@pytest.mark.parametrize("words", [(), ("",), ("portfolio-api:0.3.0",)])
def test_a_next_revision_without_a_version_registers_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    ran = Ran(tmp_path, "next_revision", *words)
    assert ran.ended.returncode == 1
    assert ran.ended.stderr.startswith("next_revision: the version is not a tag of an image: ")
    assert "register-task-definition" not in ran.operations


def test_a_next_revision_that_aws_refuses_to_describe_registers_nothing(tmp_path: Path) -> None:
    ran = Ran(tmp_path, "next_revision", "0.3.0", answers={"describe-task-definition": "refused"})
    assert ran.ended.returncode == 1
    assert ran.ended.stderr == "An error occurred (ExpiredTokenException)\n"
    assert ran.operations == ["describe-task-definition"]
