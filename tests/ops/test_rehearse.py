"""The rules, the table and the errors of a rehearsal. `.ci/run` runs a real rehearsal."""

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ops.local.definition import ContainerDefinition, parse
from ops.local.postgres_server import NOTE, PRIVATE
from ops.rehearse import host
from ops.rehearse.__main__ import _chosen, _options
from ops.rehearse.balancer import _rows
from ops.rehearse.environment import container_environment
from ops.rehearse.events import BETWEEN, USUAL, Event
from ops.rehearse.events import SHORT as SHORT_EVENTS
from ops.rehearse.faults import memory_group
from ops.rehearse.isolation import empty
from ops.rehearse.leaders import LEASES, Led
from ops.rehearse.load import Broken, Request
from ops.rehearse.measure import Happened, Row, Span, leaderless, overlap, row, windows
from ops.rehearse.names import Names
from ops.rehearse.network import REDIS
from ops.rehearse.podman import options
from ops.rehearse.profile import LONG, SHORT
from ops.rehearse.programs import RehearsalError, call
from ops.rehearse.table import table
from ops.rehearse.versions import ROOT, _checkout
from tests.chaos.database import Accepted

LEASE = LEASES[0]
WINDOW = Span(0.0, 100.0)


def written(*entries: tuple[int, float]) -> list[Accepted]:
    return [Accepted(place, LEASE, token, "portfolio_live", at) for place, (token, at) in enumerate(entries, 1)]


def judged(*, requests: list[Request] | None = None, **fields: object) -> Row:
    happened = Happened("deploy", WINDOW, lossless=True, allowed=2.0, healthy_after=5.0, **fields)  # type: ignore[arg-type]
    led = [Led("task1", lease, 0.0, 100.0) for lease in LEASES]
    return row(happened, requests or [], [Broken(50.0, "ended"), Broken(100.0, "ended")], led, [])


def test_a_write_of_an_older_term_after_a_write_of_a_newer_term_is_an_overlap() -> None:
    assert overlap(written((1, 10.0), (2, 11.0), (2, 12.0)), LEASE, WINDOW) == 0
    assert overlap(written((1, 10.0), (2, 11.0), (1, 11.5)), LEASE, WINDOW) == 0.5
    assert overlap(written((1, 10.0), (2, 11.0), (1, 11.0)), LEASE, WINDOW) > 0
    assert overlap(written((1, 10.0), (2, 11.0), (1, 11.5)), LEASE, Span(0.0, 11.5)) == 0, "the write is in another row"
    assert overlap(written((1, 10.0), (2, 11.0), (1, 11.5)), LEASES[1], WINDOW) == 0, "the writes are of another lease"


def test_the_longest_time_without_a_leader_is_reported_unless_no_task_was_wanted() -> None:
    led = [Led("task1", LEASE, -5.0, 40.0), Led("task2", LEASE, 30.0, 50.0), Led("task3", LEASE, 53.0, 90.0)]
    assert leaderless(led, LEASE, WINDOW) == 10.0
    assert leaderless(led, LEASE, WINDOW, [Span(88.0, 99.0)]) == 3.0
    assert leaderless([], LEASE, WINDOW) == 100.0
    assert leaderless(led, LEASES[1], WINDOW) == 100.0


def test_a_failed_request_breaks_a_deploy_but_not_while_no_task_is_wanted() -> None:
    failed = [Request(60.0, 1.0, "/live", "status 503")]
    assert judged(requests=failed).wrong == ["1 requests failed (status 503)"]
    assert judged(requests=failed, unwanted=(Span(55.0, 65.0),)).wrong == []
    assert judged(requests=[Request(54.5, 1.0, "/live", "status 503")], unwanted=(Span(55.0, 65.0),)).wrong == []
    assert judged(requests=[Request(60.0, 1.0, "/live", None)]).wrong == []


def test_a_row_counts_only_the_events_of_its_span() -> None:
    found = judged(requests=[Request(-1.0, 1.0, "/live", "late"), Request(100.0, 1.0, "/live", "late")])
    assert (found.requests, found.failed, found.broken) == (0, 0, 1)


def test_the_rows_cover_the_rehearsal_without_gaps() -> None:
    assert windows([1.0, 4.0], 9.0) == [Span(1.0, 4.0), Span(4.0, 9.0)]


def test_the_table_has_a_row_for_each_event_and_lists_the_faults() -> None:
    good = Row("deploy", 100, 0, 6, 0.1, 0.0, 7.25)
    bad = Row("kill -9 API", 90, 3, 1, 40.0, 0.5, None, ["writers overlapped for 0.500 s"])
    text = table([good, bad])
    assert "VERDICT: 1 FAULTS" in text
    assert "kill -9 API: writers overlapped for 0.500 s" in text
    lines = text.splitlines()
    assert lines[1].split() == ["deploy", "100", "0", "6", "0.1", "s", "0", "7.2", "s", "ok"]
    assert lines[2].split()[-2:] == ["never", "FAULT"]
    assert table([good]).endswith("VERDICT: every row is as promised.")


def test_a_container_gets_the_values_of_its_definition(tmp_path: Path) -> None:
    given = {
        "mountPoints": [{"sourceVolume": "state", "containerPath": "/var/lib/state"}],
        "memory": 896,
        "cpu": 384,
        "user": "10001:10001",
        "readonlyRootFilesystem": True,
        "linuxParameters": {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}},
    }
    words = options(one_container(given), tmp_path)
    for word in (
        "--memory=896m",
        "--memory-swap=896m",
        "--cpu-shares=384",
        "--user=10001:10001",
        "--init",
        "--volume=/var/lib/state",
    ):
        assert word in words
    assert {"--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL"} <= set(words)
    plain = " ".join(options(one_container({}), tmp_path))
    assert not any(word in plain for word in ("--memory", "--read-only", "--init", "--user", "--cap-drop"))


def one_container(fields: dict[str, object]) -> ContainerDefinition:
    document = {
        "family": "test",
        "volumes": [{"name": "state"}],
        "containerDefinitions": [{"name": "a", "image": "a", "command": ["true"], **fields}],
    }
    return parse(document).container("a")


def test_the_definition_s_servers_never_reach_a_container() -> None:
    variables = {
        "REDIS_HOST": "production",
        "REDIS_PORT": "6379",
        "REDIS_USERNAME": "production",
        "LEASE_TTL": "30",
        "LEASES": "a",
    }
    fields: dict[str, object] = {"environment": [{"name": name, "value": value} for name, value in variables.items()]}
    sidecar = one_container(fields).model_copy(update={"name": "sidecar"})
    found = container_environment(sidecar, SHORT, {"ECS_AGENT_URI": "there"})
    assert "production" not in " ".join(found.values())
    assert found["REDIS_URL"].startswith("rediss://")
    assert found["REDIS_USERNAME"] == "sidecar"
    assert (found["LEASE_TTL"], found["LEASES"], found["ECS_AGENT_URI"]) == ("6", "a", "there")
    assert "MARKET_CALENDAR" not in found
    assert container_environment(sidecar, LONG, {})["LEASE_TTL"] == "30", "the long rehearsal has the definition's ttl"


@pytest.mark.parametrize(
    ("groups", "folder"),
    [
        ("5:devices:/x\n4:memory:/rehearse/task1/a\n1:cpu:/x\n0::/\n", "/sys/fs/cgroup/memory/rehearse/task1/a"),
        ("0::/rehearse/task1/a\n", "/sys/fs/cgroup/rehearse/task1/a"),
    ],
)
def test_the_memory_cgroup_is_found_in_both_versions(groups: str, folder: str) -> None:
    assert memory_group(groups) == Path(folder)


def test_a_machine_without_cgroups_for_memory_is_reported() -> None:
    with pytest.raises(RehearsalError, match="no cgroups for memory"):
        memory_group("1:cpu:/x\n")


def test_a_check_that_is_under_way_keeps_the_last_result() -> None:
    text = (
        "# pxname,svname,status,check_status,\napi,target1,DRAIN,* L7OK,\napi,target2,DOWN,L4CON,\napi,BACKEND,UP,,\n"
    )
    assert list(_rows(text)) == [("target1", "DRAIN", "L7OK"), ("target2", "DOWN", "L4CON")]


def test_a_failover_changes_the_address_in_the_mounted_hosts_file(tmp_path: Path) -> None:
    names = Names(tmp_path)
    file = tmp_path / "hosts"
    mounted = file.stat().st_ino
    names.point_redis_to(REDIS[1])
    assert file.stat().st_ino == mounted
    assert f"{REDIS[1]} redis.rehearsal" in file.read_text().splitlines()
    assert REDIS[0] not in file.read_text().split()


def test_the_short_rehearsal_is_part_of_the_long_one_and_an_old_version_has_its_own_events() -> None:
    names = [event.name for event in _chosen(_options([]))]
    short = [event.name for event in _chosen(_options(["--short"]))]
    assert short == [name for name in names if name in short]
    assert len(short) == len(SHORT_EVENTS)
    assert "deploy old -> today" in [event.name for event in _chosen(_options(["--short", "--old", "HEAD"]))]
    assert [event.name for event in _chosen(_options(["--events", "failover"]))] == ["Redis failover"]
    with pytest.raises(RehearsalError, match="no event name contains nonsense"):
        _chosen(_options(["--events", "nonsense"]))


@pytest.mark.parametrize("event", [*USUAL, *BETWEEN], ids=lambda event: str(event.name))
def test_every_event_is_documented_and_some_may_lose_no_request(event: Event) -> None:
    assert event.lossless == event.name.startswith(("deploy", "scale", "API short of memory"))
    assert event.name in (ROOT / "docs" / "rehearsal.md").read_text()


def test_an_unknown_commit_is_one_line() -> None:
    with pytest.raises(RehearsalError, match=r"^OLD=nonsense: git has no such commit$"):
        _checkout("nonsense")


def test_a_run_removes_the_private_folders_of_a_killed_run(tmp_path: Path) -> None:
    """The private folder of a server is outside the folder of the run."""
    private = Path(tempfile.mkdtemp(prefix=PRIVATE))
    server = tmp_path / "2" / "postgres"
    server.mkdir(parents=True)
    (server / NOTE).write_text(str(private))
    empty(tmp_path)
    assert not private.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_second_rehearsal_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "LOCK", tmp_path / "lock")
    with (
        host.only_one(),
        pytest.raises(RehearsalError, match="another rehearsal or `make sizes` runs"),
        host.only_one(),
    ):
        pass
    with host.only_one():
        pass  # the end of the first rehearsal has released the lock


def test_a_rehearsal_without_root_is_refused_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RehearsalError, match="need root"):
        host.check()


def test_a_missing_program_is_one_line_and_status_2(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "ops.rehearse", "--short"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("rehearse: ")
    assert ended.stderr.count("\n") == 1
    assert "root" in ended.stderr or "podman is not installed; Debian has it in the package podman" in ended.stderr


async def test_a_failed_program_is_one_line_and_a_cancelled_program_is_ended() -> None:
    with pytest.raises(RehearsalError, match=r"`sh -c echo no >&2; exit 3` ended with status 3: no"):
        await call("sh", "-c", "echo no >&2; exit 3")
    with pytest.raises(RehearsalError, match="no-such-program: No such file"):
        await call("no-such-program")
    assert await call("sh", "-c", "echo yes; exit 3", check=False) == "yes\n"
    sleeping = asyncio.create_task(call("sleep", "100"))
    await asyncio.sleep(0)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
