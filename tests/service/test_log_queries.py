"""The queries of docs/log-queries.md answer their questions, given only the JSON logs of real processes."""

import json
import re
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from ops.local.servers import RedisServer
from tests.support.insights import Query, shown
from tests.support.processes import ROOT, Process, Service, Sidecar, command_of
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

DOCUMENT = (ROOT / "docs/log-queries.md").read_text()
QUERIES = dict(re.findall(r"^### (.+?)$.*?^```\n(.+?)^```", DOCUMENT, re.MULTILINE | re.DOTALL))
TIMINGS = {"LEASE_TTL": "6", "HEARTBEAT_INTERVAL": "1", "GRANT_TTL": "2", "REDIS_TIMEOUT": "1"}
EVENT = re.compile(
    r'"event": "(\w+)"|\["event"\] = "(\w+)"|_fields\(term, "(\w+)"\)'
    r'|, "((?:work|term|grant)_(?:began|ended|over|overdue))"'
)
OF_CLOUDWATCH = {"@timestamp", "@message", "@logStream"}


def documented() -> dict[str, set[str]]:
    """The fields of each event in the table of the document."""
    events: dict[str, set[str]] = {}
    for names, fields in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([^|]*) \|", DOCUMENT, re.MULTILINE):
        _, as_event, named = fields.rpartition("as `run_began`")
        found = set(re.findall(r"`(\w+)`", named)) | (events["run_began"] if as_event else set())
        events |= dict.fromkeys(re.findall(r"`(\w+)`", names), found)
    return events


def rows_of(stream: str, process: Process) -> list[dict[str, Any]]:
    """The lines of a process as Insights sees them: a line that is not JSON has only a message."""
    rows: list[dict[str, Any]] = []
    for line in process.output.splitlines():
        fields = json.loads(line) if line.startswith("{") else {}
        at = fields.get("time") or (rows[-1]["@timestamp"] if rows else "2000-01-01T00:00:00.000Z")
        rows.append({**fields, "@timestamp": at, "@message": line, "@logStream": f"task/{stream}"})
    return rows


class Run:
    """Two tasks and their logs."""

    def __init__(self) -> None:
        self.processes: dict[str, Process] = {}

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for stream, process in self.processes.items() for row in rows_of(stream, process)]

    def has(self, event: str, **fields: object) -> bool:
        """Whether some line has this event and these fields."""
        return any(row.get("event") == event and fields.items() <= row.items() for row in self.rows)

    def lost(self, lease: str, instance: str) -> bool:
        """Whether a log line of the API or of the sidecar says that a term of this instance ended in an outage."""
        return self.has("grant_over", lease=lease, instance=instance) or self.has(
            "term_ended", lease=lease, instance=instance, reason="deadline"
        )

    def ask(self, title: str, **replaced: str) -> list[tuple[Any, ...]]:
        """The result of a query of the document, with some of the query's text replaced.

        A number to replace is written with a `_` before it, because no parameter's name may begin with a digit.
        """
        text = QUERIES[title]
        for old, new in replaced.items():
            text = text.replace(old.removeprefix("_"), new)
        return shown(Query(text).run(self.rows))


@pytest.mark.slow
async def test_the_queries_find_every_event_in_the_logs_of_two_faulty_tasks(
    new_sidecar: Callable[..., Sidecar],
    new_service: Callable[..., Service],
    stack: AsyncExitStack,
    redis_server: RedisServer,
    samples_url: str,
    tmp_path: Path,
) -> None:
    proxy = await stack.enter_async_context(Proxy(redis_server.port))
    through = f"redis://127.0.0.1:{proxy.port}"
    run = Run()
    database = await asyncpg.connect(samples_url)
    stack.push_async_callback(database.close)

    async def start(name: str) -> tuple[Sidecar, Service]:
        sidecar = await stack.enter_async_context(new_sidecar(name, REDIS_URL=through, **TIMINGS))
        run.processes[f"sidecar/{name}"] = sidecar
        service = new_service(name, sidecar.url)
        run.processes[f"api/{name}"] = service
        return sidecar, await stack.enter_async_context(service)

    # A run cannot write, so it fails. Another task continues the run after the first API is lost.
    lock = database.transaction()
    await lock.start()
    await database.execute("lock table portfolio_history in access exclusive mode")
    first_sidecar, first = await start("one")
    await eventually(lambda: run.has("run_began", instance="one"), within=60)
    blocked = "select count(pg_terminate_backend(pid)) from pg_locks where not granted and pid <> pg_backend_pid()"

    async def failed() -> bool:
        await database.fetchval(blocked)
        return run.has("run_failed", instance="one")

    await eventually(failed, within=60)
    second_sidecar, second = await start("two")
    first.kill()
    await eventually(lambda: run.has("term_ended", reason="client_silent"), within=60)
    await lock.rollback()
    await eventually(lambda: run.has("run_done", instance="two", job="reconstruction"), within=60)

    # Redis is unreachable until the term is over.
    await eventually(second.leads, within=60)
    await proxy.refuse()
    await eventually(lambda: run.lost("background_services", "two"), within=60)
    for lease in ("background_services", "daily_scheduler"):
        away = partial(run.has, "state_changed", lease=lease, instance="two", state="disconnected")
        await eventually(away, within=60)
    await proxy.accept()
    await eventually(lambda: run.has("redis_recovered"), within=60)
    await eventually(second.leads, within=60)

    # An operator disables and enables the lease, and asks the leader to step down. The token in the database is raised,
    # which ends the work. Then the operator runs a job by hand.
    operator = {"REDIS_URL": redis_server.url, "LEASE_KEY": second_sidecar.environment["LEASE_KEY"]}

    async def run_command(*words: str) -> int:
        command = command_of("sidecar", tmp_path / f"{words[0]}.log", *words, **operator)
        run.processes[f"sidecar/{words[0]}"] = command
        command.start()
        return await command.end()

    assert await run_command("disable", "background_services", "600") == 0
    await eventually(lambda: run.has("state_changed", state="disabled", instance="two"), within=60)
    assert await run_command("enable", "background_services") == 0
    await eventually(second.leads, within=60)
    assert await run_command("step-down", "background_services") == 1, "no other task has a client"
    await eventually(second.leads, within=60)
    await database.execute("update lease_fence set token = token + 1 where lease = 'background_services'")
    await eventually(lambda: run.has("work_stopped", instance="two"), within=60)
    await eventually(second.leads, within=60)
    by_hand = command_of(
        "service", tmp_path / "by-hand.log", "run", "snapshot",
        DATABASE_URL=samples_url, MARKET_CALENDAR="24/7", PRICE_SOURCE="simulated",
    )  # fmt: skip
    run.processes["api/by-hand"] = by_hand
    by_hand.start()
    assert await by_hand.end() == 0

    # SIGTERM ends the second API, and then both sidecars.
    second.send(signal.SIGTERM)
    assert await second.end() == 0
    for sidecar in (second_sidecar, first_sidecar):
        sidecar.send(signal.SIGTERM)
        assert await sidecar.end() == 0
    rows = run.rows
    terms = {(row["lease"], row["token"]): row for row in rows if row.get("event") == "term_began"}

    led = run.ask("Who led when")
    assert list(dict.fromkeys(row[2] for row in led)) == ["one", "two"]
    assert {row[1] for row in led} == {"background_services"}
    assert led == sorted(led)

    lengths = run.ask("Terms and how long they were")
    assert {(lease, token) for _, lease, _, token, _, _ in lengths} == set(terms), "each term has its end"
    assert all(seconds > 0 for *_, seconds, _ in lengths)

    each = {row[:2]: row[2:] for row in run.ask("How long each task led")}
    assert set(each) == {
        (lease, task) for lease in ("background_services", "daily_scheduler") for task in ("one", "two")
    }
    assert all(total >= longest > 0 for _, total, longest in each.values())

    reasons = {row[:2]: row[2] for row in run.ask("Why terms ended")}
    for reason in ("client_silent", "disabled", "step_down"):
        assert reasons[("background_services", reason)] >= 1
    assert {("background_services", "resigned"), ("daily_scheduler", "resigned")} <= set(reasons)

    token = led[0][3]
    story = [row[1] for row in run.ask("All lines of one term", _1795890843352891=str(token))]
    assert story.index("work_began") < story.index("fence_claimed") < story.index("term_ended")
    assert story.index("term_began") < story.index("term_ended")

    cut_off = next(row[3] for row in led if row[2] == "two")
    story = [row[1:4:2] for row in run.ask("All lines of one term", _1795890843352891=str(cut_off))]
    assert ("term_ended", "deadline") in story or ("grant_over", None) in story, "the API or the sidecar notices first"

    whole = run.ask("All lines of one lease")
    assert {row[1] for row in whole} >= {"term_began", "term_ended", "state_changed", "redis_failed", "work_ended"}
    assert ("two", "following", "one") in {(row[2], row[4], row[5]) for row in whole}

    vacant = {(row[1], row[2], row[3]) for row in run.ask("When nobody could lead")}
    assert {("background_services", "two", state) for state in ("disconnected", "disabled")} <= vacant
    assert ("daily_scheduler", "two", "disconnected") in vacant

    asked = run.ask("Who asked for a step-down, or disabled or enabled a lease")
    commands = {f"task/sidecar/{word}" for word in ("disable", "enable", "step-down")}
    assert {row[1] for row in asked} >= commands | {"task/sidecar/two"}

    done = run.ask("Runs, with durations and rows")
    jobs = {row[1] for row in done}
    assert jobs == {"eod", "snapshot", "reconstruction"}
    assert {row[3] for row in done} >= {"two"}
    assert all(seconds > 0 for *_, seconds in done)
    portfolios = await database.fetchval("select count(*) from portfolio")
    assert any(row[1] == "eod" and row[6] == portfolios for row in done)

    totals = {row[0]: row[1:] for row in run.ask("How long each job takes")}
    assert totals["snapshot"][0] == sum(row[1] == "snapshot" for row in done)
    assert totals["eod"][3] == sum(row[6] for row in done if row[1] == "eod")

    continued = run.ask("Runs that a later term continued")
    assert {row[3] for row in continued} == {"two"}, "the run of the lost task"
    assert all(attempt > 1 for *_, attempt, _ in continued)

    wrong = run.ask("Runs that failed or were interrupted, and why")
    assert next(row[1] for row in wrong if row[4] == "one") == "run_failed"
    assert all("failed" in row[-1] or "interrupted" in row[-1] for row in wrong)

    (begun, ended) = run.ask("Runs by hand")
    assert (begun[1], ended[1], ended[2]) == ("run_began", "run_done", "snapshot")
    assert ended[4].startswith("by-hand:")

    kinds = {(row[1], row[2]) for row in run.ask("Errors by kind")}
    assert ("redis_failed", "connection") in kinds or ("redis_failed", "timeout") in kinds
    assert ("run_failed", None) in kinds

    calls = run.ask("Failed calls to Redis")
    assert next(row[2] for row in calls if row[1] == "task/sidecar/two") == "redis_failed"
    assert [row[2] for row in calls if row[1] == "task/sidecar/two"][-1] == "redis_recovered"

    stopped = run.ask("Why the work ended by itself")
    assert ("work_stopped", "background_services") in {row[1:3] for row in stopped}
    assert {row[3] for row in stopped} <= {token for _, token in terms}

    events = documented()
    for row in rows:
        if "event" in row:
            names = {name for name, value in row.items() if value is not None and not name.startswith("@")}
            assert names - {"time", "level", "logger", "message", "event", "exc_info"} <= events[row["event"]], row
    fields = set().union(*rows) | OF_CLOUDWATCH
    for title, query in QUERIES.items():
        assert Query(query).fields_used <= fields, title
    secret = urlsplit(samples_url).password
    assert secret is None or all(secret not in row["@message"] for row in rows)


@pytest.mark.parametrize("title", QUERIES)
def test_the_parser_accepts_every_query_of_the_document(title: str) -> None:
    query = Query(QUERIES[title])
    known = {field for fields in documented().values() for field in fields} | OF_CLOUDWATCH
    assert query.fields_used <= known | {"event", "level", "logger", "message"}


def test_the_documents_table_of_events_matches_the_code() -> None:
    folders = (ROOT / name for name in ("runtime", "sidecar", "service"))
    code = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    written = {name for names in EVENT.findall(code) for name in names if name}
    assert len(written) > 30
    assert written == set(documented())


@pytest.mark.parametrize(
    "text",
    [
        "fields lease; token",
        "filter lease == 1",
        "filter lease = background_services",
        "where lease = 1",
        "stats count(*) by lease",
        "stats median(seconds) as middle by lease",
        "stats count(*) as terms by lease\n| sort token desc",
        "sort token",
        "limit 0",
        "limit 10001",
        'filter event in ("a", "b")',
        "filter (event = 1",
        "fields a b",
    ],
)
def test_the_parser_refuses_a_query_outside_of_the_grammar(text: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        Query(text)


def test_the_evaluator_filters_groups_sorts_and_limits() -> None:
    rows = [
        {"@timestamp": f"2026-01-01T00:00:0{n}Z", "event": event, "seconds": seconds}
        for n, (event, seconds) in enumerate([("a", 1), ("b", 2), ("a", 3), ("c", None)])
    ]
    text = 'filter event in ["a", "b"] and not (seconds > 2)\n| fields event, seconds\n| sort seconds asc\n| limit 1'
    assert shown(Query(text).run(rows)) == [("a", 1)]
    text = "stats count(*) as n, sum(seconds) as total, latest(seconds) as last by event\n| sort total desc"
    assert shown(Query(text).run(rows)) == [("a", 2, 4, 3), ("b", 1, 2, 2), ("c", 1, 0, None)]
    assert shown(Query("filter event like /^[bc]|z/ and ispresent(seconds)\n| fields event").run(rows)) == [("b",)]
    assert shown(Query("fields event").run(rows)) == [("c",), ("a",), ("b",), ("a",)], "the newest comes first"
