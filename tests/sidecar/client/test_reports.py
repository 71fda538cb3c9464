"""The sidecar's reports through the client library: the status, and the last terms of a lease."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from sidecar.client import LeaseClient, LeaseReport, PastTerm, SidecarReport, Unknown
from sidecar.client import reports as client_reports
from sidecar.client.reports import LONGEST_REPORT, parse_history, parse_status
from tests.support.fake_sidecar import ReportingSidecar, lease_report, past_term
from tests.support.listening import listening

NAME = "background_services"
MISSING = "missing"
"""Value that stands for a missing field."""


@pytest.fixture
async def sidecar() -> AsyncIterator[ReportingSidecar]:
    async with ReportingSidecar(NAME).listening() as sidecar:
        yield sidecar


async def test_the_status_has_each_lease_as_the_sidecar_sees_it(sidecar: ReportingSidecar) -> None:
    sidecar.leases[NAME] = lease_report(state="leading", is_leader=True, holder="task-a", token=7, remaining=12.5)
    async with LeaseClient(sidecar.url) as client:
        report = await client.status()
    lease = LeaseReport("leading", is_leader=True, holder="task-a", token=7, remaining=12.5, trouble=None)
    assert report == SidecarReport("task-a", {NAME: lease})


async def test_unknown_fields_of_a_newer_sidecar_are_ignored(sidecar: ReportingSidecar) -> None:
    sidecar.leases[NAME] = lease_report(holder_remaining=20.5, step_down="asked to step down", later="unknown")
    async with LeaseClient(sidecar.url) as client:
        lease = (await client.status()).leases[NAME]
    assert (lease.holder_remaining, lease.step_down) == (20.5, "asked to step down")


async def test_the_history_has_the_terms_newest_first(sidecar: ReportingSidecar) -> None:
    sidecar.terms[NAME] = [
        past_term(3, "task-a", end="holding", released_at=None, reason=None),
        past_term(2, "task-b", end="not released", released_at=None, reason=None),
        past_term(1, "task-a"),
    ]
    async with LeaseClient(sidecar.url) as client:
        last, lost, first = await client.leadership(NAME).history()
    assert (last.end, lost.end) == ("holding", "not released")
    began, ended = (datetime(2026, 11, 28, 12, minute, 0, 123_000, UTC) for minute in (1, 2))
    assert first == PastTerm(1, "task-a", began, ended, "released", "resigned")


async def test_a_report_creates_no_demand(sidecar: ReportingSidecar) -> None:
    async with LeaseClient(sidecar.url) as client:
        await client.status()
        await client.leadership(NAME).history()
    assert sidecar.paths == ["/status", f"/history/{NAME}"]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, {"error": "no such path"}, "the answer is HTTP 404: no such path"),
        (404, {}, "the answer is HTTP 404"),
        (503, {"error": "Redis cannot be used"}, "the answer is HTTP 503: Redis cannot be used"),
        (503, {"error": "two\nlines"}, "the answer is HTTP 503"),
        (503, {"error": "x" * 301}, "the answer is HTTP 503"),
        (503, {"error": 1}, "the answer is HTTP 503"),
    ],
)
async def test_a_refusal_raises_unknown_with_the_reason(
    status: int, body: dict[str, Any], error: str, sidecar: ReportingSidecar
) -> None:
    sidecar.refusal = status, body
    async with LeaseClient(sidecar.url) as client:
        with pytest.raises(Unknown) as unknown:
            await client.leadership(NAME).history()
    assert str(unknown.value) == error


async def test_without_a_sidecar_the_reports_are_unknown() -> None:
    async with LeaseClient("http://127.0.0.1:9") as client:
        with pytest.raises(Unknown):
            await client.status()
        with pytest.raises(Unknown):
            await client.leadership(NAME).history()


@asynccontextmanager
async def another_program(body: bytes, *, endless: bool) -> AsyncIterator[str]:
    """A program that answers every request with this body, once or endlessly."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(body)
        while endless:
            await response.write(body)
            await asyncio.sleep(0)
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with listening(web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)) as url:
        yield url


async def test_a_report_of_endless_length_is_unknown() -> None:
    async with another_program(b" " * 65536, endless=True) as url, LeaseClient(url) as client:
        for report in (client.status, client.leadership(NAME).history):
            with pytest.raises(Unknown, match=f"longer than {LONGEST_REPORT} bytes"):
                await report()


async def test_a_report_that_never_completes_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.client.sidecar_api.LIMIT", 0.05)
    monkeypatch.setattr("sidecar.client.sidecar_api.HISTORY_LIMIT", 0.05)

    async def never(_: web.Request) -> web.Response:
        return await asyncio.Future()

    app = web.Application()
    app.router.add_get("/{path:.*}", never)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    async with listening(runner) as url, LeaseClient(url) as client:
        for report in (client.status, client.leadership(NAME).history):
            with pytest.raises(Unknown, match="no answer in time"):
                await report()


INVALID_FIELDS: list[tuple[str, object]] = [
    *((field, MISSING) for field in past_term(1, "task-a")),
    ("token", True), ("token", 0), ("token", 2**63), ("token", "1"), ("token", 1.5),
    ("holder", None), ("holder", 1),
    ("acquired_at", None), ("acquired_at", 1795881763), ("acquired_at", "yesterday"),
    ("acquired_at", "2026-11-28T18:00:00"), ("released_at", "2026-11-28T18:00:00"), ("released_at", 7),
    ("end", "lost"), ("end", None), ("reason", 7),
]  # fmt: skip


@pytest.mark.parametrize(("field", "invalid"), INVALID_FIELDS, ids=str)
def test_a_term_that_breaks_the_contract_is_unknown(field: str, invalid: object) -> None:
    term = {name: value for name, value in (past_term(1, "task-a") | {field: invalid}).items() if value is not MISSING}
    with pytest.raises(Unknown):
        parse_history(json.dumps({"lease": NAME, "terms": [past_term(2, "task-b"), term]}).encode(), NAME)


@pytest.mark.parametrize(
    "content",
    [
        [], None, {}, {"lease": NAME}, {"lease": NAME, "terms": {}}, {"lease": NAME, "terms": [1]},
        {"lease": "another", "terms": []},
    ],
    ids=str,
)  # fmt: skip
def test_a_history_of_another_shape_is_unknown(content: object) -> None:
    with pytest.raises(Unknown):
        parse_history(json.dumps(content).encode(), NAME)


@pytest.mark.parametrize(
    ("field", "invalid"),
    [
        *((field, MISSING) for field in lease_report()),
        ("state", None), ("is_leader", 1), ("holder", 1), ("token", True), ("token", -1), ("trouble", 1),
        ("remaining", "1"), ("remaining", -1), ("remaining", float("nan")), ("remaining", float("inf")),
        ("remaining", None), ("remaining", True), ("holder_remaining", -1), ("holder_remaining", "1"), ("step_down", 1),
    ],
    ids=str,
)  # fmt: skip
def test_a_status_that_breaks_the_contract_is_unknown(field: str, invalid: object) -> None:
    lease = {name: value for name, value in (lease_report() | {field: invalid}).items() if value is not MISSING}
    with pytest.raises(Unknown):
        parse_status(json.dumps({"instance_id": "task-a", "leases": {NAME: lease}}).encode())


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b"\xff", b'{"instance_id": 1, "leases": {}}', b"[]"])
def test_an_invalid_status_is_unknown(body: bytes) -> None:
    with pytest.raises(Unknown):
        parse_status(body)
    with pytest.raises(Unknown):
        parse_history(body, NAME)
    assert not client_reports.explanation(body)


async def test_a_report_from_a_client_that_is_not_open_is_an_error() -> None:
    client = LeaseClient()
    with pytest.raises(RuntimeError, match="not open"):
        await client.status()
    with pytest.raises(RuntimeError, match="not open"):
        await client.leadership(NAME).history()
