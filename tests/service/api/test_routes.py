"""The API's answers with a real database: errors, values, health, status and metrics."""

import json
import re
from datetime import date, timedelta

import pytest
from aiohttp import ClientSession
from yarl import URL

from service.api.limits import MAX_ROWS
from service.database.connection import StoreError
from tests.support.served_api import FRIDAY, PORTFOLIO, Served

UNKNOWN = "99999999-9999-4999-8999-999999999999"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/portfolios/nonsense/live", "id"),
        (f"/portfolios/{{{PORTFOLIO}}}/live", "id"),
        (f"/portfolios/{PORTFOLIO.hex}/history", "id"),
        (f"/portfolios/{PORTFOLIO}x/stream", "id"),
        (f"/portfolios/{PORTFOLIO}/history?from=yesterday", "from"),
        (f"/portfolios/{PORTFOLIO}/history?from=20260213", "from"),
        (f"/portfolios/{PORTFOLIO}/history?from=2026-W07-5", "from"),
        (f"/portfolios/{PORTFOLIO}/history?to=2026-02-30", "to"),
        (f"/portfolios/{PORTFOLIO}/history?to=", "to"),
        (f"/portfolios/{PORTFOLIO}/history?to=٢٠٢٦-٠٢-١٣", "to"),
        (f"/portfolios/{PORTFOLIO}/history?from=2026-02-13&to=2026-02-12", "from"),
        (f"/portfolios/{PORTFOLIO}/history?limit=0", "limit"),
        (f"/portfolios/{PORTFOLIO}/history?limit=-1", "limit"),
        (f"/portfolios/{PORTFOLIO}/history?limit={MAX_ROWS + 1}", "limit"),
        (f"/portfolios/{PORTFOLIO}/history?limit=1e2", "limit"),
        (f"/portfolios/{PORTFOLIO}/history?limit=1&limit=1", "limit"),
        (f"/portfolios/{PORTFOLIO}/history?from=2026-02-13&to=2026-02-13&from=2026-02-12", "from"),
        (f"/portfolios/{PORTFOLIO}/history?form=2026-02-13", "form"),
    ],
)
async def test_a_malformed_parameter_is_400_and_named(path: str, field: str, served: Served) -> None:
    status, answer = await served.get(path)
    assert (status, answer["field"]) == (400, field)
    assert answer["error"]


@pytest.mark.parametrize("view", ["live", "history", "stream"])
async def test_an_unknown_portfolio_is_404(view: str, served: Served) -> None:
    assert await served.get(f"/portfolios/{UNKNOWN}/{view}") == (404, {"error": f"no portfolio {UNKNOWN}"})


async def test_an_unknown_path_is_404_and_a_wrong_method_405(served: Served) -> None:
    assert await served.get("/nowhere") == (404, {"error": "no such path"})
    assert await served.get("/healthz", "POST") == (405, {"error": "POST is not allowed here"})
    assert await served.get(f"/portfolios/{PORTFOLIO}/stream", "DELETE") == (
        405,
        {"error": "DELETE is not allowed here"},
    )


@pytest.mark.parametrize("path", [f"/portfolios/{PORTFOLIO}/{view}" for view in ("live", "history", "stream")])
async def test_a_database_failure_is_503_without_details(
    path: str, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StoreError("database: secret table is on fire")

    monkeypatch.setattr(served.store, "owner", fail)
    assert await served.get(path) == (503, {"error": "the database is not available"})


async def test_a_bug_is_500_in_json_and_its_traceback_is_in_the_log(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(served.store, "owner", fail)
    assert await served.get(f"/portfolios/{PORTFOLIO}/live") == (500, {"error": "internal error"})
    assert "ZeroDivisionError: inside" in caplog.text


async def test_a_portfolio_without_a_value_is_404_with_that_reason(served: Served) -> None:
    status, answer = await served.get(f"/portfolios/{PORTFOLIO}/live")
    assert (status, answer) == (404, {"error": f"portfolio {PORTFOLIO} has no live value yet"})


async def test_money_is_a_decimal_string_and_never_a_float(served: Served, session: ClientSession) -> None:
    await served.write_live("912345678901234.1234")
    async with session.get(f"{served.url}/portfolios/{PORTFOLIO}/live") as response:
        answer = json.loads(await response.text(), parse_float=lambda text: pytest.fail(f"a float: {text}"))
    assert answer == {
        "portfolio_id": str(PORTFOLIO),
        "session_date": "2026-02-13",
        "as_of": "2026-02-13T17:00:00.250000Z",
        "value": "912345678901234.1234",
        "day_open": "100.0000",
        "day_high": "912345678901234.1234",
        "day_low": "912345678901234.1234",
        "day_change": "912345678901134.1234",
        "priced_fraction": "1.0000",
        "unpriced_symbols": [],
        "unpriced_count": 0,
        "stale": False,
        "oldest_price_at": "2026-02-13T17:00:00.250000Z",
        "token": 7,
    }


async def test_history_is_the_newest_rows_between_two_dates_both_included_oldest_first(served: Served) -> None:
    days = [FRIDAY + timedelta(days=n) for n in range(5)]
    await served.write_history(days)

    async def dates(query: str) -> list[date]:
        status, answer = await served.get(f"/portfolios/{PORTFOLIO}/history{query}")
        assert status == 200
        return [date.fromisoformat(row["date"]) for row in answer["history"]]

    assert await dates("") == days
    assert await dates(f"?from={days[1]}&to={days[3]}") == days[1:4]
    assert await dates("?limit=2") == days[3:]
    assert await dates(f"?to={days[2]}&limit=1") == days[2:3]
    assert await dates("?from=2030-01-01") == []
    _, answer = await served.get(f"/portfolios/{PORTFOLIO}/history?limit=1")
    assert (answer["history"][0]["value"], answer["history"][0]["origin"]) == ("5.1000", "captured")


async def test_healthz_is_503_only_while_draining(served: Served) -> None:
    served.access._probed = "cannot connect"
    known = {"database": "cannot connect", "sidecar": "no answer yet", "memory": "ok"}
    assert await served.get_internal("/healthz") == (200, {"status": "ok", **known})
    served.health.draining = True
    assert await served.get("/healthz") == (503, {"status": "draining"})
    assert await served.get_internal("/healthz") == (503, {"status": "draining", **known})


async def test_the_public_healthz_hides_the_databases_error(served: Served) -> None:
    served.access._probed = 'password authentication failed for user "admin"'
    assert await served.get("/healthz") == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "path", ["/metrics", "/background/status", "/%6Detrics", "/background%2Fstatus", "//metrics", "/metrics/", "/"]
)
async def test_the_operators_paths_do_not_exist_on_the_public_listener(
    path: str, served: Served, session: ClientSession
) -> None:
    async with session.get(URL(served.url + path, encoded=True)) as answer:
        assert (answer.status, await answer.json()) == (404, {"error": "no such path"})


@pytest.mark.parametrize("view", ["live", "history", "stream", "positions"])
async def test_portfolios_are_not_served_on_the_internal_listener(view: str, served: Served) -> None:
    assert await served.get_internal(f"/portfolios/{PORTFOLIO}/{view}") == (404, {"error": "no such path"})


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/metrics", "/background/status", "/healthz", "/openapi.json"])
async def test_nothing_can_be_changed_on_the_internal_listener(path: str, method: str, served: Served) -> None:
    assert await served.get_internal(path, method) == (405, {"error": f"{method} is not allowed here"})


async def test_the_status_has_leases_and_jobs_and_keeps_the_leases_while_the_database_is_down(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served.write_live("1")
    status, answer = await served.get_internal("/background/status")
    assert status == 200
    assert answer["leases"]["background_services"] == {
        "is_leader": False,
        "state": "unknown",
        "holder": None,
        "token": None,
        "remaining": 0.0,
        "lease_remaining": None,
        "trouble": None,
        "last_writer": None,
    }
    assert {name: job["next_run"] for name, job in answer["jobs"].items()} == {
        "tracker": None,
        "eod": "2026-02-14T05:00:00Z",
        "snapshot": "2026-02-14T09:00:00Z",
        "reconstruction": "2026-02-14T09:30:00Z",
    }

    async def fail() -> None:
        raise StoreError("database: away")

    monkeypatch.setattr(served.store, "fences", fail)
    monkeypatch.setattr("service.api.recent.MAX_AGE", 0.0)
    status, away = await served.get_internal("/background/status")
    assert (status, away["database"], away["leases"]) == (200, "away", answer["leases"])


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=x", "text/plain;version=x"])
async def test_metrics_in_an_invalid_version_are_406(accept: str, served: Served) -> None:
    answer = await served.get_internal("/metrics", headers={"Accept": accept})
    assert answer == (406, {"error": "the Accept header asks for a version that does not exist"})


async def test_requests_are_counted_by_route_and_never_by_the_clients_text(
    served: Served, session: ClientSession
) -> None:
    for path in (f"/portfolios/{UNKNOWN}/live", "/portfolios/x/live", "/made/up"):
        await served.get(path)
    await served.get("/made/up", "PROPFIND")
    async with session.get(f"{served.internal_url}/metrics") as response:
        assert response.content_type == "text/plain"
        counted = re.findall(r"^portfolio_http_requests_total(\{.*\}) (\S+)$", await response.text(), re.MULTILINE)
    assert dict(counted) == {
        '{method="GET",route="/portfolios/{id}/live",status="404"}': "1.0",
        '{method="GET",route="/portfolios/{id}/live",status="400"}': "1.0",
        '{method="GET",route="none",status="404"}': "1.0",
        '{method="other",route="none",status="404"}': "1.0",
    }
