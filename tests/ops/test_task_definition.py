"""The task definition and the Dockerfiles: faults that ECS refuses or does not notice."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate
import pytest

from ops.local.definition import ContainerDefinition, read
from ops.local.environment import container_environment
from service.environment import KEPT
from service.settings import Settings as ServiceSettings
from sidecar import settings as sidecar_settings

ROOT = Path(__file__).parents[2]
FILE = ROOT / "task-definition.json"
DOCUMENT: dict[str, Any] = json.loads(FILE.read_text())
CONTAINERS: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in DOCUMENT["containerDefinitions"]}
DOCKERFILES = {"api": ROOT / "Dockerfile.api", "sidecar": ROOT / "Dockerfile.sidecar"}
MEMORY_BY_CPU = {
    256: {512, 1024, 2048},
    512: set(range(1024, 4097, 1024)),
    1024: set(range(2048, 8193, 1024)),
    2048: set(range(4096, 16385, 1024)),
    4096: set(range(8192, 30721, 1024)),
}

each_container = pytest.mark.parametrize("name", CONTAINERS)


def test_botocore_accepts_it_as_the_input_of_register_task_definition() -> None:
    model = botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model("ecs", "service-2"))
    shape = model.operation_model("RegisterTaskDefinition").input_shape
    assert shape is not None
    validator = botocore.validate.ParamValidator()
    assert validator.validate(DOCUMENT, shape).generate_report() == ""
    assert validator.validate(DOCUMENT | {"stopTimeout": 3}, shape).has_errors(), "an unknown field is accepted"


def test_the_runner_s_own_checks_pass_too() -> None:
    """The runner checks ranges of times, and that dependsOn is acyclic and names containers of the task.

    It also checks that a container which another container awaits as HEALTHY has a healthCheck.
    """
    assert read(FILE).dependents("sidecar") == ["api"]


def test_the_api_starts_after_a_healthy_sidecar_and_stops_before_it() -> None:
    assert CONTAINERS["api"]["dependsOn"] == [{"containerName": "sidecar", "condition": "HEALTHY"}]
    assert "dependsOn" not in CONTAINERS["sidecar"]


@each_container
def test_each_container_is_essential_unprivileged_and_read_only(name: str) -> None:
    container = CONTAINERS[name]
    assert container["essential"] is True
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", container["user"])
    assert container["readonlyRootFilesystem"] is True
    assert container["linuxParameters"] == {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}}
    assert "privileged" not in container


def test_an_ordered_stop_fits_into_the_two_minutes_of_a_spot_interruption() -> None:
    assert sum(container["stopTimeout"] for container in CONTAINERS.values()) < 120


def test_every_container_has_enough_time_for_an_orderly_stop() -> None:
    service = container_environment(_defined("api"), shift=0, caller={}, backends={})
    assert CONTAINERS["api"]["stopTimeout"] > float(service["SHUTDOWN_TIMEOUT"]) + 5
    timings = _sidecar().timings
    assert CONTAINERS["sidecar"]["stopTimeout"] > timings.grant_ttl + 2 * timings.call_limit


def test_fargate_has_the_task_s_size_and_the_containers_fit() -> None:
    cpu, memory = int(DOCUMENT["cpu"]), int(DOCUMENT["memory"])
    assert memory in MEMORY_BY_CPU[cpu]
    assert sum(container["cpu"] for container in CONTAINERS.values()) <= cpu
    assert sum(container["memory"] for container in CONTAINERS.values()) <= memory
    assert DOCUMENT["networkMode"] == "awsvpc"
    assert DOCUMENT["requiresCompatibilities"] == ["FARGATE"]


def test_the_control_port_stays_on_the_task_s_loopback() -> None:
    control = _sidecar().control
    mapped = {mapping["containerPort"] for container in CONTAINERS.values() for mapping in container["portMappings"]}
    assert control.host == "127.0.0.1"
    assert control.port not in mapped
    assert mapped == {8080, 9101, 9102}


@each_container
def test_prometheus_finds_each_container_s_metrics_at_a_mapped_port(name: str) -> None:
    container = CONTAINERS[name]
    labels = container["dockerLabels"]
    assert int(labels["ECS_PROMETHEUS_EXPORTER_PORT"]) in [
        entry["containerPort"] for entry in container["portMappings"]
    ]
    assert labels["ECS_PROMETHEUS_METRICS_PATH"] == "/metrics"
    assert labels["ECS_PROMETHEUS_JOB_NAME"]


def test_the_api_uses_the_sidecar_s_address() -> None:
    control = _sidecar().control
    assert _defined("api").variables["SIDECAR_URL"] == f"http://{control.host}:{control.port}"


def test_each_variable_is_read_by_its_program() -> None:
    known_to_service = {*(name.upper() for name in ServiceSettings.model_fields), *KEPT, "PGSSLMODE"}
    assert {*_defined("api").variables, *(entry.name for entry in _defined("api").secrets)} <= known_to_service
    source = "".join(path.read_text() for path in Path(sidecar_settings.__file__).parent.glob("*.py"))
    for name in (*_defined("sidecar").variables, "REDIS_PASSWORD"):
        assert f'"{name}"' in source, name


def test_the_database_s_certificate_is_checked_with_a_ca_in_the_image() -> None:
    variables = _defined("api").variables
    assert variables["PGSSLMODE"] == "verify-full"
    assert "\nCOPY ops/certificates certificates\n" in DOCKERFILES["api"].read_text()
    assert Path(variables["PGSSLROOTCERT"]).parent == Path("/app/certificates")


def test_the_environment_has_no_secrets() -> None:
    secrets = {name: [entry["name"] for entry in container["secrets"]] for name, container in CONTAINERS.items()}
    assert secrets == {
        "api": ["DATABASE_URL", "APCA_API_KEY_ID", "APCA_API_SECRET_KEY"],
        "sidecar": ["REDIS_PASSWORD"],
    }
    for container in CONTAINERS.values():
        for entry in container["secrets"]:
            assert re.fullmatch(r"arn:aws:secretsmanager:us-west-1:0{12}:secret:[\w/-]+:\w+::", entry["valueFrom"])


def test_only_the_folders_of_ecs_exec_s_agent_are_writable() -> None:
    """Issue 1359 of aws/containers-roadmap names the folders. The agent of each container needs its own folders."""
    mounted = [mount for container in CONTAINERS.values() for mount in container["mountPoints"]]
    assert [volume["name"] for volume in DOCUMENT["volumes"]] == [mount["sourceVolume"] for mount in mounted]
    for container in CONTAINERS.values():
        folders = {mount["containerPath"] for mount in container["mountPoints"]}
        assert folders == {"/managed-agents", "/var/lib/amazon/ssm", "/var/log/amazon/ssm"}


def test_the_redis_password_is_sent_only_over_tls_and_belongs_to_the_sidecar_s_own_user() -> None:
    """ElastiCache accepts a password only over TLS."""
    variables = _defined("sidecar").variables
    assert variables["REDIS_URL"].startswith("rediss://")
    assert variables["REDIS_USERNAME"] == "sidecar"


def test_placeholders_are_obvious_and_the_same_everywhere() -> None:
    text = FILE.read_text()
    assert set(re.findall(r"\b\d{12}\b", text)) == {"000000000000"}
    assert set(re.findall(r"\b[a-z]{2}-[a-z]+-\d\b", text)) == {"us-west-1"}


@each_container
def test_logs_never_block_a_container(name: str) -> None:
    options = CONTAINERS[name]["logConfiguration"]["options"]
    assert options["mode"] == "non-blocking"
    assert options["awslogs-group"] == "/ecs/portfolio-api"


def test_a_sidecar_that_crashes_is_restarted_but_not_after_invalid_settings() -> None:
    policy = CONTAINERS["sidecar"]["restartPolicy"]
    assert policy == {"enabled": True, "ignoredExitCodes": [2], "restartAttemptPeriod": 60}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_accepts_the_dockerfile(name: str) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    found = subprocess.run([hadolint, DOCKERFILES[name]], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_image_has_the_command_and_the_user_of_the_task_definition(name: str) -> None:
    text = DOCKERFILES[name].read_text()
    assert json.loads(re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[-1]) == CONTAINERS[name]["entryPoint"]
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE)[-1] == CONTAINERS[name]["user"]
    (ports,) = re.findall(r"^EXPOSE (.*)$", text, re.MULTILINE)
    assert [int(port) for port in ports.split()] == [
        entry["containerPort"] for entry in CONTAINERS[name]["portMappings"]
    ]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_image_is_built_in_two_stages_from_locked_and_hashed_wheels(name: str) -> None:
    text = DOCKERFILES[name].read_text()
    assert len(re.findall(r"^FROM ", text, re.MULTILINE)) == 2
    assert re.search(r"ARG PYTHON_IMAGE=python:3\.\d+-slim", text)
    for option in ("--require-hashes", "--only-binary :all:", "--no-cache-dir", "compileall"):
        assert option in text
    locked = ROOT / re.findall(r"^COPY (requirements/\S+) ", text, re.MULTILINE)[0]
    assert "--hash=sha256:" in locked.read_text()


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_files_that_an_image_copies_exist_and_are_not_ignored(name: str) -> None:
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in re.findall(r"^COPY ([^-]\S*) ", DOCKERFILES[name].read_text(), re.MULTILINE):
        assert (ROOT / source).exists()
        assert any(entry == source or entry.startswith(f"{source}/") for entry in let_through), source


def test_the_sidecar_s_image_has_no_files_of_the_service() -> None:
    copied = re.findall(r"^COPY ([^-]\S*) ", DOCKERFILES["sidecar"].read_text(), re.MULTILINE)
    assert copied == ["requirements/sidecar.txt", "runtime", "sidecar"]


def _defined(name: str) -> ContainerDefinition:
    return read(FILE).container(name)


def _sidecar() -> sidecar_settings.Settings:
    injected = {entry.name: "injected" for entry in _defined("sidecar").secrets}
    return sidecar_settings.read({**_defined("sidecar").variables, **injected})
