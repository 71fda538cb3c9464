"""Reading a task definition: an error is one line that names the field."""

import json
from pathlib import Path
from typing import Any

import pytest

from ops.local.definition import DefinitionError, parse, read

PROBE = {"command": ["CMD", "true"]}


def definition(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"family": "test", "containerDefinitions": list(containers)}


def container(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "test", "command": ["true"]} | fields


def after(name: str, condition: str) -> dict[str, Any]:
    return {"dependsOn": [{"containerName": name, "condition": condition}]}


def test_entry_point_and_command_make_the_command_line() -> None:
    task = parse(definition(container("a", entryPoint=["python", "-m"], command=["service"])))
    assert task.container("a").argv == ["python", "-m", "service"]


def test_an_optional_container_with_its_image_s_command_is_left_out() -> None:
    agent = {"name": "agent", "image": "agent:1", "essential": False}
    assert parse(definition(container("a"), agent)).left_out == ["agent"]
    assert parse(definition(container("a"))).left_out == []


def test_defaults_are_the_defaults_of_ecs() -> None:
    checked = parse(definition(container("a", healthCheck=PROBE))).container("a")
    assert (checked.essential, checked.stop_timeout) == (True, 30)
    assert checked.health_check is not None
    probe = checked.health_check
    assert (probe.interval, probe.timeout, probe.retries, probe.start_period) == (30, 5, 3, 0)


def test_a_shell_check_runs_in_a_shell() -> None:
    checked = parse(definition(container("a", healthCheck={"command": ["CMD-SHELL", "exit 0"]}))).container("a")
    assert checked.health_check is not None
    assert checked.health_check.argv == ["/bin/sh", "-c", "exit 0"]


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ([], "Input should be a valid dictionary"),
        ({"family": "test"}, "containerDefinitions: Field required"),
        (definition(), "containerDefinitions: List should have at least 1 item"),
        (definition(container("a", stopTimeout=900)), "containerDefinitions[a].stopTimeout: Input should be less than"),
        (
            definition(container("a", linuxParameters={"capabilities": {"drop": ["all"]}})),
            "containerDefinitions[a].linuxParameters.capabilities.drop[0]: Input should be 'ALL'",
        ),
        (definition(container("a", stopTimeout=1)), "containerDefinitions[a].stopTimeout: Input should be greater"),
        (
            definition(container("a", stopTimeout="30")),
            "containerDefinitions[a].stopTimeout: Input should be a valid int",
        ),
        (
            definition(container("a", healthCheck=PROBE | {"interval": 1})),
            "containerDefinitions[a].healthCheck.interval: Input should be greater than or equal to 5",
        ),
        (
            definition(container("a", healthCheck={"command": ["true", "now"]})),
            "containerDefinitions[a].healthCheck.command: begins with 'true', not with CMD or CMD-SHELL",
        ),
        (
            definition(container("a", restartPolicy={"enabled": True, "restartAttemptPeriod": 5})),
            "containerDefinitions[a].restartPolicy.restartAttemptPeriod: Input should be greater",
        ),
        (
            definition(container("a", environment=[{"name": "X"}])),
            "containerDefinitions[a].environment[X].value: Field required",
        ),
        (
            definition(container("a", environment=[{"name": "A=B", "value": "1"}])),
            "containerDefinitions[a].environment[A=B].name: contains '=', which",
        ),
        (
            definition(container("a", environment=[{"name": "A\0B", "value": "1"}])),
            "environment[0].name: contains a NUL or half of a surrogate pair, which",
        ),
        (
            definition(container("a", environment=[{"name": "A", "value": "x\0"}])),
            "containerDefinitions[a].environment[A].value: contains a NUL or half of a surrogate pair, which",
        ),
        (
            definition(container("a", environment=[{"name": "A", "value": "\ud800"}])),
            "containerDefinitions[a].environment[A].value: contains a NUL or half of a surrogate pair, which",
        ),
        (
            definition(container("a", command=["true", "x\0"])),
            "containerDefinitions[a].command[1]: contains a NUL or half of a surrogate pair, which",
        ),
        (
            definition(container("a", entryPoint=["\0"])),
            "containerDefinitions[a].entryPoint[0]: contains a NUL or half of a surrogate pair, which",
        ),
        (
            definition(container("a", healthCheck={"command": ["CMD", "x\0"]})),
            "containerDefinitions[a].healthCheck.command[1]: contains a NUL or half of a surrogate pair, which",
        ),
        (definition(container("a", command=[])), "containerDefinitions[a]: has neither entryPoint nor command"),
        (
            definition(container("a", **after("b", "START")), container("b", essential=False, command=[])),
            "a dependsOn b, which has neither entryPoint nor command",
        ),
        (definition(container("a"), container("a")), "two containers have the same name"),
        (definition(container("a", essential=False)), "no container is essential"),
        (definition(container("a", **after("b", "START"))), "a dependsOn b, which does not exist"),
        (
            definition(container("a", **after("b", "SOON")), container("b")),
            "containerDefinitions[a].dependsOn[0].condition: Input should be 'START', 'COMPLETE', 'SUCCESS'",
        ),
        (
            definition(container("a", **after("b", "HEALTHY")), container("b")),
            "a dependsOn b HEALTHY, which has no healthCheck",
        ),
        (
            definition(container("a", **after("b", "SUCCESS")), container("b")),
            "a waits for the end of b, which is essential",
        ),
        (
            definition(container("a", **after("b", "START")), container("b", **after("a", "START"))),
            "dependsOn has a cycle: a -> b -> a",
        ),
    ],
)
def test_an_error_names_its_field(document: object, complaint: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(document, "x.json")
    assert str(caught.value).startswith("x.json: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)


def test_a_missing_or_invalid_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"^t\.json: cannot be read: No such file"):
        read(tmp_path / "t.json")
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(DefinitionError, match=r"^t\.json: not JSON: "):
        read(tmp_path / "t.json")
    (tmp_path / "t.json").write_text(json.dumps(definition(container("a"))))
    assert read(tmp_path / "t.json").family == "test"


def test_a_mount_of_an_unknown_volume_is_refused() -> None:
    mounting = container("a", mountPoints=[{"sourceVolume": "state", "containerPath": "/state"}])
    with pytest.raises(DefinitionError, match="a mounts state, which is not in volumes"):
        parse(definition(mounting))
    parse(definition(mounting) | {"volumes": [{"name": "state"}]})


FARGATE = {"requiresCompatibilities": ["FARGATE"]}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (FARGATE | {"memory": "1024"}, "cpu: missing; Fargate needs it"),
        (FARGATE | {"cpu": "512"}, "memory: missing; Fargate needs it"),
        (FARGATE | {"cpu": "500", "memory": "1024"}, "cpu: Fargate has no tasks of 500 CPU units"),
        (FARGATE | {"cpu": "512", "memory": "512"}, "memory: Fargate has no tasks of 512 CPU units with 512 MiB"),
        (FARGATE | {"cpu": "8 vCPU", "memory": "17 GB"}, "memory: Fargate has no tasks of 8192 CPU units"),
        ({"cpu": "half a core"}, "'half a core' is not a whole number, or a number of vCPU"),
        ({"memory": "1 TB"}, "'1 TB' is not a whole number, or a number of GB"),
        ({"cpu": "128"}, "cpu: the containers have 256 CPU units, but the task has 128"),
        ({"memory": "100"}, "memory: the containers have 200 MiB, but the task has 100"),
    ],
)
def test_a_size_that_ecs_would_refuse_is_one_line(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(definition(container("a", cpu=128, memory=100), container("b", cpu=128, memory=100)) | fields)
    assert str(caught.value).startswith(f"task definition: {complaint}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cpu", ["512", "0.5 vCPU", ".5 vcpu"])
def test_a_task_s_cpu_may_be_in_units_or_in_cores(cpu: str) -> None:
    assert parse(definition(container("a")) | FARGATE | {"cpu": cpu, "memory": "1 GB"}).cpu_units == 512
