"""Prometheus's rules and Grafana's dashboard use only metrics and labels of the product.

`make alerts` tests with promtool and `ops/prometheus/rules_test.yml` that each alert fires when it must.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import promql_parser
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from ops.local.servers import RedisServer
from service import __main__ as service_commands
from service.telemetry import HttpMetrics, LeadershipMetrics, new_registry
from service.work.metrics import WorkMetrics
from sidecar.client import LeaseClient
from sidecar.commands import operator as commands
from tests.ops.test_task_definition import CONTAINERS
from tests.sidecar.test_process import STEADY
from tests.support.processes import RealSidecar, killed_at_exit
from tests.support.waiting import eventually

OPS = Path(__file__).parents[2] / "ops"
GROUPS = yaml.safe_load((OPS / "prometheus/rules.yml").read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
PANELS = json.loads((OPS / "grafana/dashboard.json").read_text())["panels"]
ASKED = [rule["expr"] for rule in RULES] + [
    target["expr"] for panel in PANELS if panel["type"] != "row" for target in panel["targets"]
]
OF_PROMETHEUS = {"job", "instance"}
"""Labels that a scrape adds."""

Metrics = dict[str, set[str]]
"""The metrics of a program: the labels of each metric, by the metric's name."""


def labels_by_metric(families: Iterable[Any]) -> Metrics:
    """Return the names and labels of the samples."""
    found: Metrics = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def at_its_start() -> Metrics:
    """Return the metrics of an API at the start."""
    registry = new_registry()
    HttpMetrics(registry)
    WorkMetrics(registry)
    return labels_by_metric(registry.collect())


def of_the_service() -> Metrics:
    """Return every metric of the API, including counters without samples."""
    registry = new_registry()
    with_labels: list[object] = [*vars(HttpMetrics(registry)).values(), *vars(WorkMetrics(registry)).values()]
    for metric in with_labels:
        if isinstance(metric, MetricWrapperBase) and metric._labelnames:
            metric.labels(*metric._labelnames)
    registry.register(LeadershipMetrics({"lease": LeaseClient().leadership("lease")}))
    return labels_by_metric(registry.collect())


async def of_a_sidecar(redis: RedisServer, folder: Path) -> Metrics:
    """Return every scraped metric of a sidecar that leads, has renewed its lease, and has had no fault."""
    sidecar = RealSidecar(
        folder, redis, "task-1", REQUIRE_CLIENT="false", LEASE_TTL="3", HEARTBEAT_INTERVAL="0.5", GRANT_TTL="1"
    )

    async def scraped() -> str:
        async with aiohttp.ClientSession() as session, session.get(sidecar.metrics_url) as response:
            text = await response.text()
        return text if "sidecar_renewal_duration_seconds_count 0.0" not in text and "sidecar_token" in text else ""

    with killed_at_exit(sidecar):
        sidecar.start()
        return labels_by_metric(text_string_to_metric_families(await eventually(scraped)))


def selectors(expression: Any) -> Iterator[Any]:
    """Yield each use of a metric in a parsed expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for part in ("lhs", "rhs", "expr", "param", "vector_selector"):
        if (inner := getattr(expression, part, None)) is not None:
            yield from selectors(inner)
    for argument in getattr(expression, "args", ()):
        yield from selectors(argument)


def counters_in_increases(expression: Any) -> Iterator[str]:
    """Yield the counters whose increase an expression uses."""
    if isinstance(expression, promql_parser.Call) and expression.func.name in ("increase", "rate"):
        yield from (selector.name for argument in expression.args for selector in selectors(argument))
    for part in ("lhs", "rhs", "expr"):
        if (inner := getattr(expression, part, None)) is not None:
            yield from counters_in_increases(inner)
    for argument in getattr(expression, "args", ()):
        yield from counters_in_increases(argument)


async def test_every_metric_and_label_in_use_exists(redis_server: RedisServer, tmp_path: Path) -> None:
    of_sidecar = await of_a_sidecar(redis_server, tmp_path)
    of_sidecar["sidecar_redis_errors_total"] = {"kind"}  # has no samples without a fault
    there = of_sidecar | of_the_service()
    for name, labels in there.items():
        assert not labels & OF_PROMETHEUS, f"{name}: Prometheus itself sets the labels job and instance"
    there |= {rule["record"]: {"lease"} for rule in RULES if "record" in rule} | {"up": set()}
    there["ALERTS"] = {"alertname", "alertstate", "lease", "severity"}
    for text in ASKED:
        names = {selector.name for selector in selectors(promql_parser.parse(text))}
        labels_there = set().union(*(there.get(name, set()) for name in names), OF_PROMETHEUS)
        for selector in selectors(promql_parser.parse(text)):
            assert selector.name in there, text
            labels = {matcher.name for matcher in selector.matchers.matchers}
            assert labels <= there[selector.name] | OF_PROMETHEUS, text
        for grouped in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", text):
            assert {label.strip() for label in grouped.split(",") if label.strip()} <= labels_there, text


async def test_a_counter_in_an_increase_starts_at_zero(redis_server: RedisServer, tmp_path: Path) -> None:
    """If a counter started at 1, Prometheus would see no increase, and would miss the first EOD of a new task."""
    there = await of_a_sidecar(redis_server, tmp_path) | at_its_start()
    as_they_come = {
        "sidecar_redis_errors_total",
        "portfolio_http_requests_total",
        "portfolio_http_request_seconds_bucket",
    }
    wanted = {name for text in ASKED for name in counters_in_increases(promql_parser.parse(text))}
    assert "portfolio_job_runs_total" in wanted
    assert wanted - as_they_come <= set(there)
    registry = new_registry()
    WorkMetrics(registry)
    for job in ("eod", "snapshot", "reconstruction"):
        for outcome in ("done", "failed"):
            labels = {"job_name": job, "outcome": outcome}
            assert registry.get_sample_value("portfolio_job_runs_total", labels) == 0


async def test_two_sidecars_with_one_instance_id_increase_the_counter_of_the_alert(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    [alert] = [rule for rule in RULES if rule.get("alert") == "InstanceIdShared"]
    [counter] = selectors(promql_parser.parse(alert["expr"]))
    wanted = {matcher.name: matcher.value for matcher in counter.matchers.matchers}
    sidecars = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        settings = {"LEASE_KEY": "clash:{name}", "REQUIRE_CLIENT": "false"} | STEADY
        sidecars.append(RealSidecar(tmp_path / name, redis_server, "same", **settings))

    async def superseded() -> float:
        total = 0.0
        async with aiohttp.ClientSession() as session:
            for sidecar in sidecars:
                async with session.get(sidecar.metrics_url) as response:
                    families = text_string_to_metric_families(await response.text())
                samples = (sample for family in families for sample in family.samples if sample.name == counter.name)
                total += sum(sample.value for sample in samples if wanted.items() <= sample.labels.items())
        return total

    with killed_at_exit(*sidecars):
        for sidecar in sidecars:
            sidecar.start()

        async def has_grown() -> bool:
            return await superseded() > 3

        await eventually(has_grown)


def test_each_alert_has_a_severity_a_summary_and_a_remedy() -> None:
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS) > 10
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("critical", "warning"), alert["alert"]
        assert set(alert["annotations"]) == {"summary", "runbook", "runbook_url"}, alert["alert"]
        assert all(alert["annotations"][name].endswith(".") for name in ("summary", "runbook")), alert["alert"]


def test_each_alert_that_silences_another_one_exists() -> None:
    named = {name for names in re.findall(r'alertname=~?"([^"]+)"', " ".join(ASKED)) for name in names.split("|")}
    assert "RedisUnreachable" in named
    assert named <= {alert["alert"] for alert in ALERTS}


def test_an_alert_on_the_leader_waits_for_at_least_two_scrapes() -> None:
    waits = {alert["alert"]: alert["for"] for alert in ALERTS if "lease:leaders:sum" in alert["expr"]}
    assert waits == {"NobodyLeads": "2m", "LeaderUnseen": "10m", "TwoLeaders": "1m"}
    config = yaml.safe_load((OPS / "prometheus/ecs.yml").read_text())["global"]
    assert config == {"scrape_interval": "15s", "evaluation_interval": "15s"}, "four scrapes in the shortest wait"


def test_promtool_tests_that_each_alert_fires_and_stays_silent() -> None:
    tests = yaml.safe_load((OPS / "prometheus/rules_test.yml").read_text())["tests"]
    fired = {name for test in tests for name in fired_alerts(test)}
    assert fired == {alert["alert"] for alert in ALERTS}
    deploy = next(test for test in tests if "deploy" in test["name"])
    assert fired_alerts(deploy) == set()
    assert len(deploy["promql_expr_test"]) > 5


def fired_alerts(test: dict[str, Any]) -> set[str]:
    """Return the alerts that fire in a promtool test."""
    of_alerts = {case["alertname"] for case in test.get("alert_rule_test", ()) if case["exp_alerts"]}
    firing = [case for case in test.get("promql_expr_test", ()) if "firing" in case["expr"]]
    samples = (sample["labels"] for case in firing for sample in case["exp_samples"])
    return of_alerts | {re.findall(r'alertname="(\w+)"', labels)[0] for labels in samples}


def test_each_command_of_a_runbook_exists() -> None:
    runbooks = " ".join(alert["annotations"]["runbook"] for alert in ALERTS)
    used = set(re.findall(r"python -m (\w+) (\w+)", runbooks))
    assert {("sidecar", "status"), ("sidecar", "leaders"), ("service", "run"), ("service", "import")} <= used
    assert_known(used)


def assert_known(used: set[tuple[str, str]]) -> None:
    """Check that each (program, command) is in the program's usage."""
    known = {"sidecar": commands.USAGE, "service": service_commands.USAGE}
    for program, command in used:
        assert re.search(rf"^ +{command}\b", known[program], re.MULTILINE), command


def test_each_alert_that_the_guide_requires_exists() -> None:
    """The rules cover Redis, leader changes, continuous work, a missed EOD, a missing leader and two leaders."""
    wanted = {"RedisUnreachable", "LeadMovesOften", "LiveValuesStandStill", "JobsWait", "NobodyLeads", "TwoLeaders"}
    assert wanted <= {alert["alert"] for alert in ALERTS}


def test_the_documented_times_are_the_times_of_the_rules() -> None:
    """Each alert in docs/monitoring.md exists and waits for the documented time."""
    waits = {alert["alert"]: alert.get("for") for alert in ALERTS}
    rows = re.findall(r"^\| `(\w+)` (.*?) \|", (OPS.parent / "docs/monitoring.md").read_text(), re.MULTILINE)
    assert len(rows) > 5
    for alert, number in rows:
        minutes = re.findall(r"(?:after|for) (\d+) min", number)
        assert [f"{each}m" for each in minutes] == [waits[alert]][: len(minutes)], alert


def test_the_docker_labels_are_documented() -> None:
    guide = (OPS.parent / "docs/monitoring.md").read_text()
    named = set(re.findall(r"`\w+_label: (\w+)`", guide))
    assert len(named) == 3
    assert all(named == set(container["dockerLabels"]) for container in CONTAINERS.values())


@pytest.mark.parametrize("file", ["local.yml", "ecs.yml"])
def test_the_scraped_ports_are_the_ports_of_the_task_definition(file: str) -> None:
    """The docker labels, for older kinds of service discovery, have the scrape configuration's port and job name."""
    config = yaml.safe_load((OPS / "prometheus" / file).read_text())
    ports = {}
    for job in config["scrape_configs"]:
        if file == "ecs.yml":
            (discovery,) = job["aws_sd_configs"]
            ports[job["job_name"]] = discovery["port"]
        else:
            ports[job["job_name"]] = int(job["static_configs"][0]["targets"][0].rpartition(":")[2])
    containers = {each["dockerLabels"]["ECS_PROMETHEUS_JOB_NAME"]: each for each in CONTAINERS.values()}
    for job, port in ports.items():
        assert containers[job]["dockerLabels"]["ECS_PROMETHEUS_EXPORTER_PORT"] == str(port)
        assert port in [mapping["containerPort"] for mapping in containers[job]["portMappings"]]
    assert set(ports) == set(containers)
    for text in ASKED:
        for named in re.findall(r'job=~"([^"]*)"', text):
            assert set(named.split("|")) == set(containers), text
    assert config["rule_files"] == ["rules.yml"]


def test_the_dashboard_s_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in PANELS):
        across, down = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        cells = {(x, y) for x in across for y in down}
        assert not cells & taken
        assert max(across) < 24
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(panel["description"] for panel in PANELS if panel["type"] != "row")
