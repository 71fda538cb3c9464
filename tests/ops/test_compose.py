"""compose.yaml matches the task definition, the Dockerfiles and the programs.

`make aws` checks compose.yaml against the Compose schema.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.environment import KEPT
from service.settings import Settings as ServiceSettings
from service.settings import read_settings
from sidecar import settings as sidecar_settings
from tests.ops.test_task_definition import CONTAINERS

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
PLACES = {
    "api": {
        "MARKET_CALENDAR", "TRACKER_INTERVAL", "PRICE_SOURCE", "ALPACA_FEED", "AUTH", "SUPABASE_URL", "PGSSLMODE",
        "PGSSLROOTCERT", "DATABASE_URL", "LOG_FORMAT",
    },
    "sidecar": {"REDIS_URL", "REDIS_USERNAME", "INSTANCE_ID", "LOG_FORMAT"},
}  # fmt: skip
"""Variables whose values differ between a single machine and ECS."""

each_container = pytest.mark.parametrize(
    ("service", "container"),
    [("api1", "api"), ("api2", "api"), ("sidecar1", "sidecar"), ("sidecar2", "sidecar")],
)


def seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)s", text)
    assert found is not None, text
    return int(found[1])


@each_container
def test_each_container_runs_as_on_ecs(service: str, container: str) -> None:
    here, defined = SERVICES[service], CONTAINERS[container]
    assert "command" not in here, "the image and the task definition have the same entry point"
    assert "entrypoint" not in here
    assert (here["user"], here["read_only"], here["init"]) == (defined["user"], True, True)
    assert here["cap_drop"] == defined["linuxParameters"]["capabilities"]["drop"]
    assert here["security_opt"] == ["no-new-privileges:true"]
    assert (seconds(here["stop_grace_period"]), here["mem_limit"]) == (defined["stopTimeout"], f"{defined['memory']}m")
    assert here["cpus"] * 1024 == defined["cpu"]
    check, health = here["healthcheck"], defined["healthCheck"]
    assert check["test"] == health["command"]
    assert (seconds(check["interval"]), seconds(check["timeout"])) == (health["interval"], health["timeout"])
    assert (check["retries"], seconds(check["start_period"])) == (health["retries"], health["startPeriod"])
    assert here["build"] == {"context": ".", "dockerfile": f"Dockerfile.{container}"}
    assert defined["image"].endswith(f"/{here['image']}")


@each_container
def test_each_environment_differs_from_the_task_definition_only_where_a_single_machine_must(
    service: str, container: str
) -> None:
    here = SERVICES[service]["environment"]
    defined = {entry["name"]: entry["value"] for entry in CONTAINERS[container]["environment"]}
    differ = {name for name in {*here, *defined} if here.get(name) != defined.get(name)}
    assert differ <= PLACES[container]
    assert all(isinstance(value, str) for value in here.values()), "YAML does not read `off` and numbers as strings"


def test_both_programs_accept_their_settings() -> None:
    for number in (1, 2):
        sidecar = sidecar_settings.read(SERVICES[f"sidecar{number}"]["environment"])
        assert sidecar.instance_id == f"task{number}"
        api = SERVICES[f"api{number}"]["environment"]
        assert api.keys() <= {*(name.upper() for name in ServiceSettings.model_fields), *KEPT}
        read_settings(api)


def test_an_api_shares_its_sidecar_s_network_and_ports_are_on_loopback_only() -> None:
    for number in (1, 2):
        api, sidecar = SERVICES[f"api{number}"], SERVICES[f"sidecar{number}"]
        assert api["network_mode"] == f"service:sidecar{number}"
        assert "ports" not in api, "Compose refuses ports together with network_mode"
        mapped = {entry["containerPort"] for container in CONTAINERS.values() for entry in container["portMappings"]}
        assert {int(port.rpartition(":")[2]) for port in sidecar["ports"]} == mapped
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)


def test_each_dependency_exists_and_can_reach_its_condition() -> None:
    for name, service in SERVICES.items():
        waits = service.get("depends_on", {})
        for other, entry in (dict.fromkeys(waits) if isinstance(waits, list) else waits).items():
            assert other in SERVICES, f"{name} waits for {other}"
            condition = (entry or {}).get("condition", "service_started")
            if condition == "service_healthy":
                assert SERVICES[other]["healthcheck"].get("test"), other
            if condition == "service_completed_successfully":
                assert SERVICES[other]["restart"] == "no", f"{other} would be restarted forever"
    assert SERVICES["api1"]["depends_on"]["sidecar1"] == {"condition": "service_healthy"}, "as dependsOn on ECS"


def test_the_migrations_and_the_samples_are_commands_that_the_service_has() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "service", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in ("migrate", "sample"):
        assert SERVICES[name]["command"] == [name]
        assert f"\n  {name} " in shown


def test_prometheus_scrapes_both_containers_of_both_tasks_and_has_the_rules() -> None:
    config = yaml.safe_load((ROOT / "ops/compose/prometheus.yml").read_text())
    local = yaml.safe_load((ROOT / "ops/prometheus/local.yml").read_text())
    assert config["rule_files"] == local["rule_files"]
    jobs = {job["job_name"]: job["static_configs"] for job in config["scrape_configs"]}
    for container, port in (("sidecar", 9102), ("api", 9101)):
        job = CONTAINERS[container]["dockerLabels"]["ECS_PROMETHEUS_JOB_NAME"]
        assert [entry["targets"] for entry in jobs[job]] == [[f"sidecar1:{port}"], [f"sidecar2:{port}"]]


def test_every_mounted_file_exists_and_grafana_finds_the_dashboard() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in DOCUMENT["volumes"] or (ROOT / source).exists(), source
    folder = ROOT / "ops/compose/grafana"
    [source] = yaml.safe_load((folder / "datasource.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((folder / "dashboards.yml").read_text())["providers"]
    assert f"./ops/grafana:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    assert (ROOT / "ops/grafana/dashboard.json").exists()
