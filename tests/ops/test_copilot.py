"""The patched template that Copilot makes from the manifest in ops/copilot matches the task definition.

`rendered` repeats what Copilot's templates do with the fields that the manifest uses (`sidecars.yml`,
`workload-container.yml` and `volumes.yml` of aws/copilot-cli). Copilot ignores unknown fields, so a misspelled field
would have no effect. Therefore `FIELDS` lists the known fields.
"""

from pathlib import Path
from typing import Any

import yaml

from tests.ops.test_aws_template import as_ecs_s_input
from tests.ops.test_task_definition import CONTAINERS, DOCKERFILES, DOCUMENT

FOLDER = Path(__file__).parents[2] / "ops/copilot"
MANIFEST: dict[str, Any] = yaml.safe_load((FOLDER / "manifest.yml").read_text())
PATCHES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "overrides/cfn.patches.yml").read_text())
SIDECAR: dict[str, Any] = MANIFEST["sidecars"]["sidecar"]
HEALTH = {"command", "interval", "timeout", "retries", "start_period"}
FIELDS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "the manifest": (
        MANIFEST,
        {
            "name", "type", "image", "http", "platform", "cpu", "memory", "count", "network", "exec", "storage",
            "variables", "secrets", "sidecars", "logging",
        },
    ),
    "image": (MANIFEST["image"], {"build", "port", "labels", "depends_on", "healthcheck"}),
    "image.healthcheck": (MANIFEST["image"]["healthcheck"], HEALTH),
    "http": (MANIFEST["http"], {"path", "alias", "healthcheck", "deregistration_delay"}),
    "http.healthcheck": (
        MANIFEST["http"]["healthcheck"],
        {"path", "success_codes", "interval", "timeout", "healthy_threshold", "unhealthy_threshold", "grace_period"},
    ),
    "network.vpc": (MANIFEST["network"]["vpc"], {"placement", "security_groups"}),
    "storage": (MANIFEST["storage"], {"readonly_fs", "volumes"}),
    "sidecars": (
        SIDECAR,
        {"image", "port", "essential", "labels", "variables", "secrets", "healthcheck", "mount_points"},
    ),
    "sidecars.healthcheck": (SIDECAR["healthcheck"], HEALTH),
    "logging": (MANIFEST["logging"], {"retention"}),
}  # fmt: skip
"""Parts of the manifest, each with the fields that are in use and in Copilot's documentation."""
OF_THE_ACCOUNT = {"image", "name", "entryPoint", "logConfiguration", "secrets", "portMappings"}
"""Fields that differ from the task definition: Copilot omits `entryPoint`, and gives the others its own values."""


def container(
    name: str, build: dict[str, Any], entry: dict[str, Any], health: dict[str, Any], port: int
) -> dict[str, Any]:
    return {
        "Name": name,
        "Image": build["build"]["dockerfile"],
        "Essential": True,
        "Environment": [{"Name": key, "Value": value} for key, value in entry["variables"].items()],
        "Secrets": [{"Name": key, "ValueFrom": value["secretsmanager"]} for key, value in entry["secrets"].items()],
        "DockerLabels": entry["labels"],
        "PortMappings": [{"ContainerPort": port, "Protocol": "tcp"}],
        "LogConfiguration": {"LogDriver": "awslogs", "Options": {"awslogs-stream-prefix": "copilot"}},
        "HealthCheck": {
            "Command": health["command"],
            "Interval": int(health["interval"].removesuffix("s")),
            "Timeout": int(health["timeout"].removesuffix("s")),
            "Retries": health["retries"],
            "StartPeriod": int(health["start_period"].removesuffix("s")),
        },
    }


def rendered() -> dict[str, Any]:
    """Return the part of Copilot's template that the patches change, before the patches."""
    image, volumes = MANIFEST["image"], MANIFEST["storage"]["volumes"]
    api = container("api-service", image, MANIFEST | {"labels": image["labels"]}, image["healthcheck"], image["port"])
    api |= {
        "ReadonlyRootFilesystem": MANIFEST["storage"]["readonly_fs"],
        "MountPoints": [
            {"SourceVolume": name, "ContainerPath": volume["path"], "ReadOnly": volume["read_only"]}
            for name, volume in volumes.items()
        ],
        "DependsOn": [
            {"ContainerName": name, "Condition": condition.upper()} for name, condition in image["depends_on"].items()
        ],
    }
    sidecar = container("sidecar", SIDECAR["image"], SIDECAR, SIDECAR["healthcheck"], SIDECAR["port"])
    properties = {"ContainerDefinitions": [api, sidecar], "Volumes": [{"Name": name} for name in volumes]}
    policies: list[dict[str, Any]] = [{"PolicyName": "DenyIAM"}]
    return {
        "Resources": {
            "TaskDefinition": {"Properties": properties},
            "TaskRole": {"Properties": {"Policies": policies}},
        }
    }


def patched() -> dict[str, Any]:
    """Return the resources of `rendered` after the patches, which are applied as RFC 6902 requires."""
    document: dict[str, Any] = rendered()
    for patch in PATCHES:
        assert patch.keys() == {"op", "path", "value"}
        assert patch["op"] == "add"
        *parents, last = patch["path"].removeprefix("/").split("/")
        place: Any = document
        for name in parents:
            place = place[int(name) if isinstance(place, list) else name]
        if isinstance(place, list):
            assert last == "-"
            place.append(patch["value"])
        else:
            assert last not in place, f"{patch['path']}: the manifest already sets this field"
            place[last] = patch["value"]
    resources: dict[str, Any] = document["Resources"]
    return resources


def test_copilot_supports_each_field() -> None:
    for name, (part, known) in FIELDS.items():
        assert part.keys() <= known, name


def test_copilot_creates_the_containers_of_the_task_definition() -> None:
    task = patched()["TaskDefinition"]["Properties"]
    for made, (name, defined) in zip(task["ContainerDefinitions"], CONTAINERS.items(), strict=True):
        container = as_ecs_s_input(made)
        for field in defined.keys() - OF_THE_ACCOUNT:
            assert container[field] == defined[field], f"{name}: {field}"
        assert container.keys() == defined.keys() - {"entryPoint"}
        assert made["Image"] == DOCKERFILES[name].name
        ports = [{key: port[key] for key in ("containerPort", "protocol")} for port in defined["portMappings"]]
        assert container["portMappings"] == ports
        for option in ("mode", "max-buffer-size"):
            wanted = defined["logConfiguration"]["options"][option]
            assert made["LogConfiguration"]["Options"][option] == wanted
    assert as_ecs_s_input(task["Volumes"]) == DOCUMENT["volumes"]
    assert (MANIFEST["cpu"], MANIFEST["memory"]) == (int(DOCUMENT["cpu"]), int(DOCUMENT["memory"]))


def test_each_secret_is_a_key_of_the_secret_that_the_guide_creates() -> None:
    for made, defined in zip(
        patched()["TaskDefinition"]["Properties"]["ContainerDefinitions"], CONTAINERS.values(), strict=True
    ):
        arns = {entry["name"]: entry["valueFrom"].split(":")[7] for entry in defined["secrets"]}
        assert {entry["Name"]: entry["ValueFrom"] for entry in made["Secrets"]} == {
            name: f"portfolio-api:{key}::" for name, key in arns.items()
        }


def test_the_task_may_protect_itself_in_its_own_cluster() -> None:
    policy = patched()["TaskRole"]["Properties"]["Policies"][-1]
    [statement] = policy["PolicyDocument"]["Statement"]
    assert statement["Action"] == ["ecs:GetTaskProtection", "ecs:UpdateTaskProtection"]
    assert "task/${Cluster}/*" in str(statement["Resource"])


def test_the_service_is_deployed_with_the_numbers_of_the_stack() -> None:
    http, health = MANIFEST["http"], MANIFEST["http"]["healthcheck"]
    assert http["deregistration_delay"] == "30s"
    assert (health["path"], health["interval"], health["timeout"]) == ("/healthz", "10s", "5s")
    assert (health["healthy_threshold"], health["unhealthy_threshold"], health["grace_period"]) == (2, 3, "90s")
    assert MANIFEST["logging"]["retention"] == 30
    assert MANIFEST["count"] == 0, "the migrations come before the first task"
    assert MANIFEST["exec"] is False, "as in the stack"
