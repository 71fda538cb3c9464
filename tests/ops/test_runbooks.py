"""docs/runbooks.md has a complete section for each alert and names only existing things. Each cause pages once.

`make alerts` tests with promtool which alerts fire in a deploy, a failover and an outage.
"""

import re
from pathlib import Path

import pytest
import redis.asyncio
import yaml

from ops.local.servers import RedisServer
from sidecar.protocol import Outcome, Reason, State
from sidecar.redis import failures
from tests.ops.test_monitoring import ALERTS, OPS, assert_known, of_a_sidecar, of_the_service

ROOT = OPS.parent
RUNBOOKS = (ROOT / "docs/runbooks.md").read_text()
PARTS = ["Meaning", "Look first", "Do", "Over when"]
GROUPS = {"Critical alerts": "critical", "Warnings": "warning"}
SCENARIOS = yaml.safe_load((OPS / "prometheus/rules_test.yml").read_text())["tests"]
ABOUT_PAGES = 'group by (alertname) (max_over_time(ALERTS{alertstate="firing", severity="critical"}[3h]))'


def sections(group: str) -> dict[str, str]:
    """Return the sections of one group by title."""
    _, _, rest = RUNBOOKS.partition(f"\n## {group}\n")
    titles = re.split(r"^### (.+)$", rest.partition("\n## ")[0], flags=re.MULTILINE)[1:]
    return dict(zip(titles[::2], titles[1::2], strict=True))


ALL = {title: text for group in GROUPS for title, text in sections(group).items()}


def test_each_alert_links_to_its_section_and_each_section_has_an_alert() -> None:
    for alert in ALERTS:
        document, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert ROOT / document == ROOT / "docs/runbooks.md", alert["alert"]
        assert anchor == alert["alert"].lower()
    assert list(ALL) == list(dict.fromkeys(ALL))
    assert set(ALL) == {alert["alert"] for alert in ALERTS}


def test_each_section_is_below_the_severity_of_its_alert() -> None:
    for group, severity in GROUPS.items():
        assert set(sections(group)) == {rule["alert"] for rule in ALERTS if rule["labels"]["severity"] == severity}


@pytest.mark.parametrize("title", ALL)
def test_a_section_has_the_meaning_the_checks_the_remedy_and_the_end(title: str) -> None:
    parts = re.findall(r"^- \*\*(.+?)\*\*: (.+?)(?=\n- |\n*\Z)", ALL[title], re.MULTILINE | re.DOTALL)
    assert [name for name, _ in parts] == PARTS
    assert all(len(text.split()) > 3 and text.rstrip().endswith((".", "?")) for _, text in parts)


def test_each_command_exists_in_its_program() -> None:
    named = set(re.findall(r"python -m (\w+)\s+(\w[\w-]*)", RUNBOOKS)) | {
        ({"sidecar": "sidecar", "api": "service"}[container], command)
        for container, command in re.findall(r"`once (sidecar|api) ([\w-]+)", RUNBOOKS)
    }
    assert {("sidecar", "leaders"), ("sidecar", "fence"), ("service", "run"), ("service", "fence")} <= named
    assert_known(named)
    targets = set(re.findall(r"`make (\w+)", RUNBOOKS))
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


async def test_each_redis_command_exists(redis_server: RedisServer) -> None:
    named = {command.split()[0] for command in re.findall(r"redis-cli ([A-Z]+[^`]*)`", RUNBOOKS)}
    assert named
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        known = await client.command()
    assert {command.lower() for command in named} <= set(known)


async def test_each_metric_exists(redis_server: RedisServer, tmp_path: Path) -> None:
    there = set(await of_a_sidecar(redis_server, tmp_path) | of_the_service())
    histograms = {name.removesuffix("_bucket") for name in there if name.endswith("_bucket")}
    schema = "".join(path.read_text() for path in (ROOT / "supabase/migrations").glob("*.sql"))
    others = set(re.findall(r"\b(?:sidecar|portfolio)_\w+", RUNBOOKS)) - there - histograms
    assert {name for name in others if not re.search(rf"\b{name}\b", schema)} == set()


def test_each_log_line_exists_in_the_code() -> None:
    code = "".join(path.read_text() for folder in ("sidecar", "service") for path in (ROOT / folder).rglob("*.py"))
    quoted = re.findall(
        r"(?:log says|The log says|log line|log lines|line of the leader|API's log:|sessions:|leader:) `([^`]+)`",
        " ".join(RUNBOOKS.split()),
    )
    assert len(quoted) > 8
    assert [line for line in quoted if line not in code] == []


def to_do(title: str) -> set[str]:
    """Return the labels in a section's part `Do`: words in backticks, in lower case, before a colon or a comma."""
    part = ALL[title].partition("- **Do**")[2].partition("- **Over when**")[0]
    return set(re.findall(r"`([a-z_]+)`[:,]", part))


@pytest.mark.parametrize("title", ["RedisFails", "RedisUnreachable"])
def test_the_sidecar_reports_each_kind_of_failure(title: str) -> None:
    codes = re.findall(r"[A-Z]{3,}", failures._CODES.pattern)
    others = {"timeout", "connection", "tls", "response", "malformed"}
    source = Path(failures.__file__).read_text()
    assert all(f'"{kind}"' in source for kind in others)
    named = to_do(title)
    assert {"auth", "noperm", "tls", "readonly", "oom"} <= named
    assert named <= {*failures.KINDS.values(), *(code.lower() for code in codes), *others}


def test_the_sidecar_reports_each_state_and_each_reason() -> None:
    states = to_do("NobodyLeads") - {"following"}
    assert {"waiting", "guarded", "disconnected"} == states
    assert states <= set(State)
    reasons = to_do("LeadMovesOften")
    assert {"deadline", "client_silent", "resigned"} <= reasons
    assert reasons <= {*Reason, *Outcome}


def test_each_link_leads_to_an_existing_section() -> None:
    headings = {title.lower() for title in ALL}
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOKS)) <= headings


def test_a_critical_alert_is_about_the_whole_service() -> None:
    """If one task fails, another task leads, so an alert about one task can wait for the next day."""
    for alert in ALERTS:
        if alert["labels"]["severity"] == "critical":
            assert "$labels.instance" not in alert["annotations"]["summary"], alert["alert"]


def test_each_scenario_pages_once() -> None:
    """`make alerts` tests the rules.

    This test checks that each of four causes has a scenario, and that no scenario expects two pages.
    """
    pages = {
        test["name"]: {sample["labels"] for case in cases for sample in case["exp_samples"]}
        for test in SCENARIOS
        if (cases := [case for case in test.get("promql_expr_test", ()) if case["expr"] == ABOUT_PAGES])
    }
    assert all(len(alerts) <= 1 for alerts in pages.values())
    (deploy,) = [alerts for name, alerts in pages.items() if name.startswith("a deploy")]
    assert deploy == set()
    for cause in ("a failover of Redis", "an outage of Redis", "an outage of the database", "nobody leads"):
        assert any(cause in name for name in pages), cause


def test_the_example_of_alertmanager_makes_one_notification_of_an_alert() -> None:
    """NobodyLeads fires once per lease, and a warning fires once per task, so notifications are grouped by alert."""
    route = yaml.safe_load((OPS / "prometheus/alertmanager.yml").read_text())["route"]
    assert route["group_by"] == ["alertname"]
    assert [each["matchers"] for each in route["routes"]] == [['severity="critical"']]
