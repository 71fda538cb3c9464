"""The CloudFormation template: the task, the network rules, and mistakes that AWS would accept.

`make aws` creates the stack in moto (tests/stack). Most of these tests find faults that neither cfn-lint nor a deploy
reports.
"""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge

from ops.local.definition import parse
from ops.local.servers import RedisServer
from runtime.log_lines import JsonLines
from runtime.metric_lines import INTERVAL, log_metrics
from service.serve import LOGGED_METRICS as LOGGED_BY_THE_API
from sidecar.run import LOGGED_METRICS as LOGGED_BY_THE_SIDECAR
from tests.ops.cloudformation import TEMPLATE as FILE
from tests.ops.cloudformation import evaluated, load, references
from tests.ops.metric_filters import matches, measured
from tests.ops.test_task_definition import CONTAINERS, DOCUMENT
from tests.support.processes import ROOT, Service, Sidecar, command_of
from tests.support.redis_rights import LEAST
from tests.support.waiting import eventually

TEMPLATE = load()
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
PROPERTIES: dict[str, dict[str, Any]] = {name: entry.get("Properties", {}) for name, entry in RESOURCES.items()}
PSEUDO = {"AWS::AccountId", "AWS::NoValue", "AWS::Partition", "AWS::Region", "AWS::StackName", "AWS::URLSuffix"}
ROLES = "arn:aws:iam::000000000000:role/"
VALUES: dict[str, Any] = {name: entry.get("Default") for name, entry in TEMPLATE["Parameters"].items()} | {
    "AWS::AccountId": "000000000000",
    "AWS::Partition": "aws",
    "AWS::Region": "us-west-1",
    "AWS::StackName": "portfolio",
    "AWS::URLSuffix": "amazonaws.com",
    "Cluster": "production",
    "ExecutionRole.Arn": f"{ROLES}portfolio-api-execution",
    "Logs": "/ecs/portfolio-api",
    "Logs.Arn": "arn:aws:logs:us-west-1:000000000000:log-group:/ecs/portfolio-api:*",
    "MinTasks": 2,
    "Redis.PrimaryEndPoint.Address": "master.portfolio-redis.xxxxxx.usw1.cache.amazonaws.com",
    "Redis.PrimaryEndPoint.Port": "6379",
    "Secret": "arn:aws:secretsmanager:us-west-1:000000000000:secret:portfolio-api-XXXXXX",
    "SupabaseUrl": "https://xxxxxxxxxxxxxxxxxxxx.supabase.co",
    "TaskRole.Arn": f"{ROLES}portfolio-api-task",
}
"""Values in task-definition.json for the template's parameters and attributes."""
VERBATIM = {"DockerLabels", "Options"}
"""Names of the maps whose keys the user chooses; these keys keep their case."""


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: PROPERTIES[name] for name, entry in RESOURCES.items() if entry["Type"] == f"AWS::{kind}"}


FILTERS = of_type("Logs::MetricFilter")
ALARMS = of_type("CloudWatch::Alarm")


def as_ecs_s_input(part: Any) -> Any:
    """Convert CloudFormation's names to the names of RegisterTaskDefinition, which begin with a small letter."""
    if isinstance(part, list):
        return [as_ecs_s_input(entry) for entry in part]
    if not isinstance(part, dict):
        return part
    return {
        key[0].lower() + key[1:]: value if key in VERBATIM else as_ecs_s_input(value) for key, value in part.items()
    }


def task() -> Any:
    conditions = dict.fromkeys(TEMPLATE["Conditions"], False)
    return as_ecs_s_input(evaluated(PROPERTIES["TaskDefinition"], VALUES, conditions))


def test_the_template_is_small_enough_for_a_deploy_without_a_bucket() -> None:
    assert FILE.stat().st_size < 51_200


def test_the_task_equals_the_task_definition() -> None:
    assert task() == DOCUMENT


def test_ecs_accepts_the_ranges_and_references_of_the_task() -> None:
    """cfn-lint accepts a stopTimeout of 900 and a dangling dependsOn; `parse` refuses both, like ECS."""
    assert parse(task()).dependents("sidecar") == ["api"]


def test_every_reference_has_a_target_under_the_same_condition() -> None:
    known = {*TEMPLATE["Parameters"], *RESOURCES, *PSEUDO}
    for where, entry in [*RESOURCES.items(), *TEMPLATE["Outputs"].items()]:
        for name in {*references(entry), *entry.get("DependsOn", ())}:
            resource = name.split(".")[0]
            assert resource in known, f"{where} refers to {name}"
            condition = RESOURCES.get(resource, {}).get("Condition")
            assert condition in (None, entry.get("Condition")), f"{where} refers to {name}, which may not exist"
    used = {name.split(".")[0] for entry in (RESOURCES, TEMPLATE["Conditions"]) for name in references(entry)}
    assert set(TEMPLATE["Parameters"]) <= used
    conditions = set(re.findall(r"'Fn::If': \['(\w+)'", str(RESOURCES)))
    conditions |= {entry["Condition"] for entry in RESOURCES.values() if "Condition" in entry}
    assert conditions == set(TEMPLATE["Conditions"])


def test_the_internet_reaches_only_the_public_port_through_the_load_balancer() -> None:
    open_to_all = [
        (name, rule["FromPort"], rule["ToPort"])
        for name, group in of_type("EC2::SecurityGroup").items()
        for rule in group.get("SecurityGroupIngress", ())
    ]
    assert open_to_all == [("LoadBalancerGroup", 443, 443), ("LoadBalancerGroup", 80, 80)]
    by_group = {
        (
            next(references(rule["GroupId"])).split(".")[0],
            next(references(rule["SourceSecurityGroupId"])).split(".")[0],
            rule["FromPort"],
            rule["ToPort"],
        )
        for rule in of_type("EC2::SecurityGroupIngress").values()
    }
    assert by_group == {
        ("TaskGroup", "LoadBalancerGroup", 8080, 8080),
        ("TaskGroup", "MetricsSecurityGroup", 9101, 9102),
        ("RedisGroup", "TaskGroup", 6379, 6379),
    }
    assert PROPERTIES["Service"]["LoadBalancers"] == [
        {"ContainerName": "api", "ContainerPort": 8080, "TargetGroupArn": {"Ref": "TargetGroup"}}
    ]
    listener, redirect = PROPERTIES["HttpsListener"], PROPERTIES["HttpListener"]
    assert (listener["Port"], listener["Protocol"]) == (443, "HTTPS")
    assert [action["Type"] for action in redirect["DefaultActions"]] == ["redirect"]


def test_a_task_reaches_only_the_ports_that_it_needs() -> None:
    rules = [
        *PROPERTIES["TaskGroup"]["SecurityGroupEgress"],
        *(rule for rule in of_type("EC2::SecurityGroupEgress").values() if "TaskGroup" in str(rule["GroupId"])),
    ]
    assert sorted((rule["FromPort"], rule["ToPort"]) for rule in rules) == [(443, 443), (5432, 5432), (6379, 6379)]
    for group in of_type("EC2::SecurityGroup").values():
        assert group["SecurityGroupEgress"], "without an entry EC2 allows everything"


def test_the_load_balancer_checks_a_path_of_the_api_and_closes_idle_connections_first() -> None:
    group, balancer = PROPERTIES["TargetGroup"], PROPERTIES["LoadBalancer"]
    assert (group["HealthCheckPath"], group["Port"], group["TargetType"]) == ("/healthz", 8080, "ip")
    attributes = {entry["Key"]: entry["Value"] for entry in balancer["LoadBalancerAttributes"]}
    assert int(attributes["idle_timeout.timeout_seconds"]) < 75
    delays = {entry["Key"]: entry["Value"] for entry in group["TargetGroupAttributes"]}
    assert delays == {"deregistration_delay.timeout_seconds": "30"}


def test_redis_is_encrypted_replicated_in_two_zones_and_has_one_user() -> None:
    redis = PROPERTIES["Redis"]
    assert redis["Engine"] == "valkey"
    for setting in (
        "TransitEncryptionEnabled",
        "AtRestEncryptionEnabled",
        "MultiAZEnabled",
        "AutomaticFailoverEnabled",
    ):
        assert redis[setting] is True, setting
    assert redis["TransitEncryptionMode"] == "required"
    assert redis["NumCacheClusters"] >= 2
    assert PROPERTIES["RedisParameters"]["Properties"] == {"maxmemory-policy": "noeviction"}
    assert redis["CacheParameterGroupName"] == {"Ref": "RedisParameters"}
    users = {user["UserName"]: user["AccessString"] for user in of_type("ElastiCache::User").values()}
    assert users.keys() == {"default", "sidecar"}
    assert users["default"] == "off -@all"
    assert users["sidecar"].split()[0] == "on"
    assert set(users["sidecar"].split()[1:]) == set(LEAST), "the rights of docs/redis.md"
    environment = parse(task()).container("sidecar").variables
    assert environment["REDIS_USERNAME"] == "sidecar"


def test_each_secret_of_a_container_is_a_key_of_the_stack_s_secret() -> None:
    generated = PROPERTIES["Secret"]["GenerateSecretString"]
    keys = {*json.loads(generated["SecretStringTemplate"]), generated["GenerateStringKey"]}
    taken = [entry["valueFrom"] for container in CONTAINERS.values() for entry in container["secrets"]]
    assert {arn.split(":")[7] for arn in taken} == keys
    assert "redis_password" in str([user["AuthenticationMode"] for user in of_type("ElastiCache::User").values()])
    assert all(not entry.get("NoEcho") for entry in TEMPLATE["Parameters"].values()), "no parameter is a secret"


def actions(role: str) -> dict[str, str]:
    """Return the actions of a role, and their resources."""
    found = {}
    for policy in PROPERTIES[role]["Policies"]:
        for chosen in policy["Fn::If"][1:2] if "Fn::If" in policy else [policy]:
            for statement in chosen["PolicyDocument"]["Statement"]:
                wanted = statement["Action"]
                for action in [wanted] if isinstance(wanted, str) else wanted:
                    found[action] = str(statement["Resource"])
    return found


def test_the_roles_have_only_the_rights_that_are_used() -> None:
    execution, task_role = actions("ExecutionRole"), actions("TaskRole")
    assert execution.keys() == {
        "ecr:GetAuthorizationToken",
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "secretsmanager:GetSecretValue",
    }
    of_exec = {name for name in task_role if name.startswith("ssmmessages:")}
    assert len(of_exec) == 4
    assert task_role.keys() - of_exec == {"ecs:GetTaskProtection", "ecs:UpdateTaskProtection"}
    for_all = {name for rights in (execution, task_role) for name, with_what in rights.items() if with_what == "*"}
    assert for_all == of_exec | {"ecr:GetAuthorizationToken"}, "these actions cannot be limited to a resource"
    assert not any("ManagedPolicyArns" in role for role in of_type("IAM::Role").values())


def test_a_failed_deploy_is_rolled_back_and_no_task_stops_before_its_replacement_runs() -> None:
    deployment = PROPERTIES["Service"]["DeploymentConfiguration"]
    assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert (deployment["MinimumHealthyPercent"], deployment["MaximumPercent"]) == (100, 200)
    assert PROPERTIES["Service"]["PlatformVersion"] == "1.4.0", "restartPolicy needs it"


def test_logs_are_kept_for_thirty_days() -> None:
    assert [group["RetentionInDays"] for group in of_type("Logs::LogGroup").values()] == [30]


def statistics(alarm: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the metrics of an alarm, with their periods."""
    if "Metrics" not in alarm:
        yield alarm
    for entry in alarm.get("Metrics", ()):
        if "MetricStat" in entry:
            yield {**entry["MetricStat"]["Metric"], "Period": entry["MetricStat"]["Period"]}


def test_each_alarm_uses_a_metric_of_a_filter_or_of_aws() -> None:
    made = {
        (each["MetricNamespace"], each["MetricName"]): {entry["Key"] for entry in each.get("Dimensions", ())}
        for entry in FILTERS.values()
        for each in entry["MetricTransformations"]
    }
    looked_at = set()
    for name, alarm in ALARMS.items():
        assert alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}], name
        assert alarm["TreatMissingData"] in ("breaching", "notBreaching"), name
        for metric in statistics(alarm):
            place = metric["Namespace"], metric["MetricName"]
            if place != ("AWS/ApplicationELB", "HealthyHostCount"):
                looked_at.add(place)
                dimensions = metric.get("Dimensions", ())
                assert {entry["Name"] for entry in dimensions} == made[place], name
                leases = CONTAINERS["sidecar"]["environment"]
                assert all(entry["Value"] in str(leases) for entry in dimensions), name
            assert metric["Period"] >= INTERVAL, "shorter than the interval of the lines"
    assert looked_at == made.keys()


def test_no_leader_two_leaders_redis_and_a_missing_eod_each_have_an_alarm() -> None:
    leases = [entry["value"] for entry in CONTAINERS["sidecar"]["environment"] if entry["name"] == "LEASES"]
    for lease in leases[0].split(","):
        of_lease = [alarm for alarm in ALARMS.values() if f"'Value': '{lease}'" in str(alarm.get("Metrics"))]
        kinds = {alarm["ComparisonOperator"]: alarm["TreatMissingData"] for alarm in of_lease}
        assert kinds == {"LessThanThreshold": "breaching", "GreaterThanThreshold": "notBreaching"}, lease
    assert {"RedisUnreachable", "EodMissing", "DatabaseDown", "NoHealthyTask"} <= ALARMS.keys()


def captured(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [JsonLines().format(record) for record in caplog.records]


async def test_metrics_are_logged_once_an_interval_with_their_labels(caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("wanted", "", ["lease"], registry=registry)
    Gauge("unwanted", "", registry=registry)
    gauge.labels("a").set(1)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        gauge.labels("b").set(len(pauses) - 1)
        if len(pauses) == 3:
            raise InterruptedError

    with caplog.at_level(logging.INFO), pytest.raises(InterruptedError):
        await log_metrics(registry, ["wanted"], sleep=sleep)
    assert pauses == [60.0] * 3
    lines = [json.loads(line) for line in captured(caplog)]
    assert [(line["metric"], line["lease"], line["value"]) for line in lines] == [
        ("wanted", "a", 1),
        ("wanted", "b", 0),
        ("wanted", "a", 1),
        ("wanted", "b", 1),
    ]


PROGRAM = """
import asyncio, sys
from prometheus_client import CollectorRegistry, Gauge
from runtime.logs import log_to_stdout
from runtime.metric_lines import log_metrics
pauses = []
async def sleep(seconds):
    if pauses:
        sys.exit()
    pauses.append(seconds)
registry = CollectorRegistry()
Gauge("wanted", "", registry=registry)
log_to_stdout("json", sys.argv[1])
asyncio.run(log_metrics(registry, ["wanted"], sleep=sleep))
"""
"""A program that logs one metric once; its argument is the value of LOG_LEVEL."""


@pytest.mark.parametrize("level", ["DEBUG", "WARNING", "ERROR"])
def test_no_log_level_filters_the_metrics(level: str) -> None:
    """Without these lines, the alarms on missing data would fire, and the other alarms would see no fault."""
    command = [sys.executable, "-c", PROGRAM, level]
    ended = subprocess.run(command, cwd=ROOT, check=True, timeout=30, stdout=subprocess.PIPE)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [(line["metric"], line["value"]) for line in lines if "metric" in line] == [("wanted", 0)]


async def test_every_filter_matches_lines_of_a_running_task_and_reads_the_right_value(
    tmp_path: Path, redis_of_its_own: RedisServer, database_url: str
) -> None:
    sidecar = Sidecar(tmp_path / "sidecar.log", redis_of_its_own.url, "task-1")
    async with aiohttp.ClientSession() as session:
        service = Service(tmp_path / "api.log", session, DATABASE_URL=database_url, SIDECAR_URL=sidecar.url)
        async with command_of("service", tmp_path / "migrate.log", "migrate", DATABASE_URL=database_url) as migrating:
            assert await migrating.end() == 0, migrating.output
        for process, module in ((sidecar, "sidecar"), (service, "service")):
            process._arguments = ["-m", "tests.support.impatient", module]
        async with sidecar, service:

            def values(name: str) -> set[tuple[float, str]]:
                return {
                    (value, dimensions.get("lease", ""))
                    for value, dimensions in taken(FILTERS[name], sidecar.output + service.output)
                }

            def has_values(name: str, *wanted: tuple[float, str]) -> Callable[[], bool]:
                return lambda: set(wanted) <= values(name)

            both = (1.0, "background_services"), (1.0, "daily_scheduler")
            await eventually(has_values("LeadingFilter", *both), within=60)
            await eventually(has_values("WorkingFilter", *both), within=60)
            await eventually(has_values("TermsFilter", *both), within=60)
            await eventually(has_values("RedisUpFilter", (1.0, "")), within=60)
            await eventually(has_values("DatabaseUpFilter", (1.0, "")), within=60)
            await eventually(has_values("RunsWaitingFilter", (0.0, "")), within=60)
            await eventually(has_values("SessionsGivenUpFilter", (0.0, "")), within=60)
            assert values("TermsFilter") == set(both), "a line that is repeated each minute would count as a new term"
            redis_of_its_own.kill()
            await eventually(has_values("RedisUpFilter", (0.0, "")), within=60)
        assert set(FILTERS) == {
            "LeadingFilter", "WorkingFilter", "TermsFilter", "RedisUpFilter", "DatabaseUpFilter", "RunsWaitingFilter",
            "SessionsGivenUpFilter",
        }  # fmt: skip


def taken(metric_filter: dict[str, Any], log: str) -> list[tuple[float, dict[str, str]]]:
    """Return the values that CloudWatch reads from a log with this filter."""
    [transformation] = metric_filter["MetricTransformations"]
    return [
        measured(transformation, line)
        for line in log.splitlines(keepends=True)
        if line.endswith("\n") and matches(metric_filter["FilterPattern"], line)
    ]


def test_the_filters_and_the_logged_metrics_are_the_same() -> None:
    named = {
        found for entry in FILTERS.values() for found in re.findall(r'\$\.metric = "(\w+)"', entry["FilterPattern"])
    }
    assert named == {*LOGGED_BY_THE_SIDECAR, *LOGGED_BY_THE_API}
    for entry in FILTERS.values():
        [transformation] = entry["MetricTransformations"]
        assert "DefaultValue" not in transformation, "with 0 as the default, silence would look like a missing leader"
