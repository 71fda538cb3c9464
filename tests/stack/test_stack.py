"""cfn-lint finds no problem in the stack, and moto creates the resources of each type that it knows."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto import mock_aws

from tests.ops.cloudformation import TEMPLATE as FILE
from tests.ops.test_aws_template import as_ecs_s_input
from tests.ops.test_task_definition import CONTAINERS
from tests.stack.moto_account import BY_API, RESOURCES, Account, client, known_to_cloudformation, types

README = (FILE.parent / "README.md").read_text()


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with mock_aws():
        account = Account()
        account.create()
        yield account


def test_cfn_lint_finds_nothing_at_any_level() -> None:
    lint = Path(sys.executable).parent / "cfn-lint"
    found = subprocess.run([lint, "--include-checks", "I", "--", FILE], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_the_readme_lists_the_types_that_moto_supports() -> None:
    rows = dict(re.findall(r"^\| ([^|]+?) \| ((?:`AWS::\w+::\w+`(?:, )?)+) \|$", README, re.MULTILINE))
    documented = {what: set(re.findall(r"AWS::\w+::\w+", row)) for what, row in rows.items()}
    assert documented == {
        "created by moto's CloudFormation": types(known_to_cloudformation),
        "created by the AWS service's API in moto": types(lambda kind: kind in BY_API),
        "not known to moto": types(lambda kind: not known_to_cloudformation(kind) and kind not in BY_API),
    }
    assert not set(BY_API) & types(known_to_cloudformation)


def test_every_resource_that_moto_supports_is_created(account: Account) -> None:
    wanted = {
        name for name, entry in RESOURCES.items() if known_to_cloudformation(entry["Type"]) or entry["Type"] in BY_API
    }
    assert account.created.keys() == wanted


def test_the_service_runs_the_task_definition(account: Account) -> None:
    ecs = client("ecs")
    [service] = ecs.describe_services(cluster="production", services=["api-service"])["services"]
    assert service["desiredCount"] == 2
    task = ecs.describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
    assert task["family"] == "portfolio-api"
    for container in task["containerDefinitions"]:
        defined = CONTAINERS[container["name"]]
        for field in ("healthCheck", "stopTimeout", "portMappings", "mountPoints", "entryPoint", "user"):
            assert as_ecs_s_input(container[field]) == defined[field], field


def test_the_alarms_and_filters_are_created(account: Account) -> None:
    cloudwatch, logs = client("cloudwatch"), client("logs")
    alarms = cloudwatch.describe_alarms(AlarmNamePrefix="portfolio-")["MetricAlarms"]
    assert len(alarms) == len([entry for entry in RESOURCES.values() if entry["Type"].endswith("::Alarm")])
    assert all(alarm["AlarmActions"] == [account.values["AlarmTopic"]] for alarm in alarms)
    filters = logs.describe_metric_filters(logGroupName="/ecs/portfolio-api")["metricFilters"]
    assert len(filters) == len([entry for entry in RESOURCES.values() if entry["Type"].endswith("::MetricFilter")])
    [group] = logs.describe_log_groups()["logGroups"]
    assert group["retentionInDays"] == 30


def test_only_the_load_balancer_is_open_to_the_internet(account: Account) -> None:
    open_to_all = {
        permission["FromPort"]
        for group in client("ec2").describe_security_groups()["SecurityGroups"]
        for permission in group["IpPermissions"]
        if permission["IpRanges"]
    }
    assert open_to_all == {443, 80}
    balancer = client("elbv2")
    listeners = balancer.describe_listeners(LoadBalancerArn=account.values["LoadBalancer"])["Listeners"]
    assert {(entry["Port"], entry["DefaultActions"][0]["Type"]) for entry in listeners} == {
        (443, "forward"),
        (80, "redirect"),
    }


def test_redis_is_encrypted_and_follows_a_failover(account: Account) -> None:
    [redis] = client("elasticache").describe_replication_groups()["ReplicationGroups"]
    assert redis["TransitEncryptionEnabled"]
    assert redis["AutomaticFailover"] == "enabled"
    assert account.values["Redis.PrimaryEndPoint.Address"] in str(redis)
