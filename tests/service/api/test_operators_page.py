"""The operators' page without a browser: its files, its headers, and the JSON that it shows."""

import asyncio
import json
import re
import tomllib
from collections.abc import AsyncIterator
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from runtime.addresses import Address
from runtime.listener import Listener
from service.api import internal_responses, recent, store_access
from service.api.listener import connection_limits
from service.api.operators_page import PARTS, SECURITY_HEADERS
from service.clock import utc_now
from service.database import transactions
from service.database.store import Store
from tests.service.api.test_outputs import HOSTILE, is_harmless
from tests.support.fake_sidecar import ReportingSidecar, lease_report, past_term
from tests.support.served_api import Served
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "service/api/page"
LEASES = ("background_services", "daily_scheduler")
PATHS = ("/", *(f"/page/{name}" for name in PARTS))


@pytest.fixture
async def sidecar() -> AsyncIterator[ReportingSidecar]:
    async with ReportingSidecar(*LEASES).listening() as sidecar:
        yield sidecar


@pytest.fixture
async def beside(
    sidecar: ReportingSidecar, shared_url: str, session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    """An API with the fake sidecar. Each request reads everything again."""
    monkeypatch.setattr(recent, "MAX_AGE", 0.0)
    monkeypatch.setattr(store_access, "PROBE_INTERVAL", 0.1)
    async with await Store.connect(shared_url, connections=2) as store:
        served = Served(store, session, sidecar_url=sidecar.url)
        probing = asyncio.create_task(served.access.run())
        await served.access.connected()
        async with served.listening(Listener, address=Address("127.0.0.1", 0), limits=connection_limits()):
            yield served
        probing.cancel()
        await asyncio.wait((probing,))


async def status(served: Served) -> Any:
    code, answer = await served.get_internal("/background/status")
    assert code == 200
    return answer


async def history(served: Served) -> Any:
    code, answer = await served.get_internal("/background/history")
    assert code == 200
    return answer["leases"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_page_and_its_parts_are_served_with_their_types(method: str, path: str, served: Served) -> None:
    async with served.session.request(method, served.internal_url + path) as answer:
        assert answer.status == 200
        assert answer.content_type == PARTS.get(path.removeprefix("/page/"), "text/html")
        assert answer.charset == "utf-8"
        body = await answer.read()
    name = path.removeprefix("/page/").removeprefix("/") or "index.html"
    assert body == ((PAGE / name).read_bytes() if method == "GET" else b"")


@pytest.mark.parametrize("path", ["/page/", "/page", "/page/index.html", "/page/../main.js", "/page/%2e%2e/auth.py"])
async def test_unknown_paths_below_the_page_are_404(path: str, served: Served) -> None:
    assert await served.get_internal(path) == (404, {"error": "no such path"})


@pytest.mark.parametrize("path", PATHS)
async def test_the_page_accepts_no_other_method_than_get(path: str, served: Served) -> None:
    assert await served.get_internal(path, "POST") == (405, {"error": "POST is not allowed here"})


@pytest.mark.parametrize("path", [*PATHS, "/background/status", "/background/history", "/metrics", "/nothing"])
async def test_every_answer_has_the_security_headers(path: str, served: Served) -> None:
    async with served.session.get(served.internal_url + path) as answer:
        assert {name: answer.headers.getall(name) for name in SECURITY_HEADERS} == {
            name: [value] for name, value in SECURITY_HEADERS.items()
        }
        assert answer.headers["Cache-Control"] == "no-cache"
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_policy_allows_nothing_from_outside_and_nothing_inline() -> None:
    policy = dict(part.split(" ", 1) for part in SECURITY_HEADERS["Content-Security-Policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert set(policy.values()) == {"'none'", "'self'"}
    assert {"script-src", "style-src", "connect-src", "frame-ancestors", "base-uri", "form-action"} <= policy.keys()


def test_the_page_names_only_its_own_parts_and_the_routes_of_this_listener() -> None:
    document = (PAGE / "index.html").read_text()
    links = set(re.findall(r'(?:src|href)="([^"]*)"', document))
    routes = {"background/status", "background/history", "healthz", "openapi.json", "metrics"}
    assert links == {"page/page.css", "page/icon.svg", "page/main.js"} | routes
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script>", document)
    for name in PARTS:
        assert not re.findall(r"(?<!xmlns=\")https?://", (PAGE / name).read_text()), name


def test_no_script_turns_text_into_html() -> None:
    for path in PAGE.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", path.read_text())


def test_every_file_of_the_page_is_served_and_is_part_of_the_wheel() -> None:
    names = {path.name for path in PAGE.iterdir()}
    assert names == {"index.html", *PARTS}
    assert {each.name for each in files("service.api").joinpath("page").iterdir()} == names
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "service" in wheel["packages"]
    assert not wheel.keys() & {"exclude", "only-include", "include"}


async def test_the_status_shows_the_leases_of_the_sidecar(beside: Served, sidecar: ReportingSidecar) -> None:
    sidecar.leases["background_services"] = lease_report(
        state="leading", is_leader=True, holder="task-a", token=7, remaining=12.5
    )
    sidecar.leases["daily_scheduler"] = lease_report(holder_remaining=28.5)
    answer = await status(beside)
    assert (answer["instance_id"], answer["sidecar"], answer["now"]) == ("task-a", "ok", "2026-02-13T17:00:00.250000Z")
    led, followed = (answer["leases"][name] for name in LEASES)
    assert (led["state"], led["holder"], followed["holder"]) == ("leading", "task-a", "task-b")
    assert 2 < led["lease_remaining"] <= 12.5 < followed["lease_remaining"] <= 28.5
    assert not led["is_leader"]  # this process has no term


async def test_the_first_problem_of_the_status_is_the_sidecar_without_redis(
    beside: Served, sidecar: ReportingSidecar
) -> None:
    for name in LEASES:
        sidecar.leases[name] = lease_report(state="disconnected", holder=None, trouble="connect: refused")
    beside.last_tick = None
    texts = [problem["text"] for problem in (await status(beside))["problems"]]
    assert texts[0].startswith("background_services and daily_scheduler: the sidecar of this task cannot use Redis")


async def test_the_status_reports_a_missing_sidecar(served: Served) -> None:
    answer = await status(served)
    assert answer["sidecar"] == "no answer (ClientConnectorError)"
    assert answer["problems"][0]["text"].startswith("The sidecar of this task does not answer")
    assert (await history(served))["background_services"] == {"terms": [], "trouble": answer["sidecar"]}


async def test_the_status_shows_the_leader_while_the_database_does_not_answer(
    beside: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    async def freeze() -> None:
        await never.wait()

    monkeypatch.setattr(beside.store, "fences", freeze)
    monkeypatch.setattr(beside.status._records, "_limit", 0.05)
    answer = await status(beside)
    assert answer["database"] == "no answer in time"
    assert answer["leases"]["background_services"]["holder"] == "task-b"
    assert any("The database cannot be used (no answer in time)" in each["text"] for each in answer["problems"])
    never.set()


async def test_the_status_shows_the_jobs_while_the_sidecar_does_not_answer(
    beside: Served, sidecar: ReportingSidecar
) -> None:
    sidecar.is_frozen = True
    answer = await status(beside)
    assert answer["sidecar"] == "no answer in time"
    lease = answer["leases"]["background_services"]
    assert (lease["state"], lease["trouble"]) == ("unknown", None)
    assert answer["jobs"]["eod"]["next_run"] == "2026-02-14T05:00:00Z"


async def test_a_lease_that_the_sidecar_lacks_is_an_error(beside: Served, sidecar: ReportingSidecar) -> None:
    del sidecar.leases["daily_scheduler"]
    answer = await status(beside)
    missing = "the sidecar of this task has no such lease; add the lease to LEASES"
    shown = {name: (lease["state"], lease["trouble"]) for name, lease in answer["leases"].items()}
    assert shown == {"background_services": ("following", None), "daily_scheduler": ("unknown", missing)}
    problem = {"severity": "error", "text": f"daily_scheduler: {missing}. This task cannot lead."}
    assert problem in answer["problems"]


async def test_the_status_warns_of_a_clock_that_differs_from_the_databases(
    beside: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = timedelta(minutes=7, seconds=30)

    async def has_warning() -> bool:
        texts = [each["text"] for each in (await status(beside))["problems"] if each["severity"] == "warning"]
        return any("7 min ahead of the database's" in text for text in texts)

    assert not await has_warning()
    with monkeypatch.context() as patch:
        patch.setattr(transactions, "utc_now", lambda: utc_now() + lead)
        await eventually(has_warning)
    await eventually(lambda: beside.access.clock_difference is None)
    assert not await has_warning()


async def test_the_history_has_the_last_terms(beside: Served, sidecar: ReportingSidecar) -> None:
    sidecar.terms["background_services"] = [
        past_term(2, "task-b", end="holding", released_at=None, reason=None),
        past_term(1, "task-a"),
    ]
    assert await history(beside) == {
        "background_services": {
            "terms": [
                {
                    "token": 2,
                    "holder": "task-b",
                    "acquired_at": "2026-11-28T12:02:00.123000Z",
                    "released_at": None,
                    "end": "holding",
                    "reason": None,
                },
                {
                    "token": 1,
                    "holder": "task-a",
                    "acquired_at": "2026-11-28T12:01:00.123000Z",
                    "released_at": "2026-11-28T12:02:00.123000Z",
                    "end": "released",
                    "reason": "resigned",
                },
            ],
            "trouble": None,
        },
        "daily_scheduler": {"terms": [], "trouble": None},
    }


@pytest.mark.parametrize("code", [404, 503])
async def test_without_the_sidecars_history_only_the_terms_are_missing(
    code: int, beside: Served, sidecar: ReportingSidecar
) -> None:
    sidecar.refusal = code, {"error": "why"}
    none = {"terms": [], "trouble": f"the answer is HTTP {code}: why"}
    assert await history(beside) == dict.fromkeys(LEASES, none)
    answer = await status(beside)
    assert answer["sidecar"] == "ok"
    assert answer["leases"]["background_services"]["holder"] == "task-b"


async def test_the_sidecar_is_asked_at_most_once_a_second(
    beside: Served, sidecar: ReportingSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "MAX_AGE", 1000.0)
    for _ in range(2):
        await asyncio.gather(*(history(beside) for _ in range(4)), *(status(beside) for _ in range(4)))
    assert sorted(sidecar.paths) == sorted(["/status", *(f"/history/{name}" for name in LEASES)])


async def test_texts_from_outside_are_bounded_and_printable(beside: Served, sidecar: ReportingSidecar) -> None:
    hostile = HOSTILE[:5_000]
    sidecar.leases["background_services"] = lease_report(holder=hostile, state=hostile, trouble=hostile)
    sidecar.terms["background_services"] = [past_term(n, hostile, reason=hostile) for n in range(1, 12)]
    answer, terms = await status(beside), await history(beside)
    lease = answer["leases"]["background_services"]
    texts = [lease["holder"], lease["state"], lease["trouble"], *(problem["text"] for problem in answer["problems"])]
    texts += [each[field] for each in terms["background_services"]["terms"] for field in ("holder", "reason")]
    assert len(texts) > 25
    assert all(map(is_harmless, texts))
    assert all(len(text) < 500 for text in texts)


async def test_the_number_of_terms_is_bounded(beside: Served, sidecar: ReportingSidecar) -> None:
    sidecar.terms["background_services"] = [past_term(n, "task-a") for n in range(200, 0, -1)]
    shown = (await history(beside))["background_services"]["terms"]
    assert [term["token"] for term in shown] == list(range(200, 200 - internal_responses.MOST_TERMS, -1))


async def test_the_answers_name_no_address_of_a_server(beside: Served) -> None:
    text = json.dumps([await status(beside), await history(beside)])
    assert "redis:6379" not in text
    assert "postgres" not in text
