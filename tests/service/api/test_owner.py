"""Portfolios belong to their owners: the answers to other users, and what the owner may write."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import jwt
import pytest
from aiohttp import ClientSession
from pydantic import SecretStr

from service.api import limits, middleware
from service.api import routes as app
from service.api.auth import TokenGuard
from service.api.jwks import KeySet, KeysUnavailable
from service.api.position_body import read_entries
from service.commands.samples import SAMPLES, USERS
from service.database.connection import StoreError
from service.database.position_writes import TooManyPositions
from tests.support.served_api import FRIDAY, PORTFOLIO, Served

OWNER, OTHER = USERS
OTHERS = next(portfolio for portfolio, (_, user, _) in SAMPLES.items() if user == OTHER)
UNKNOWN = "99999999-9999-4999-8999-999999999999"
SECRET = "a shared secret of more than thirty-two bytes"
URL = "http://127.0.0.1:1"
VIEWS = ("live", "history", "stream")


@pytest.fixture
async def guarded(served: Served) -> AsyncIterator[Served]:
    """The API with a shared secret and without a key server."""
    guard = TokenGuard(URL, KeySet(URL), SecretStr(SECRET))
    served.api._guard = guard
    await served.write_live("10")
    await served.write_history([FRIDAY])
    yield served
    await guard.aclose()


def bearer(user: UUID = OWNER, **changed: Any) -> dict[str, str]:
    claims = {"iss": f"{URL}/auth/v1", "aud": "authenticated", "role": "authenticated", "sub": str(user)}
    until = {"exp": int(time.time()) + 3600}
    return {"Authorization": "Bearer " + jwt.encode({**claims, **until, **changed}, SECRET, "HS256")}


def body(*entries: tuple[str, str, str]) -> str:
    fields = ("symbol", "quantity", "valid_from")
    return json.dumps([dict(zip(fields, entry, strict=True)) for entry in entries])


async def put(served: Served, portfolio: object, text: str, **more: Any) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json", **bearer(), **more.pop("headers", {})}
    return await served.get(f"/portfolios/{portfolio}/positions", "PUT", data=text, headers=headers, **more)


async def positions(served: Served, portfolio: UUID) -> dict[tuple[str, date], Decimal]:
    async with served.store._connection() as connection:
        rows = await connection.fetch("select * from position where portfolio_id = $1", portfolio)
    return {(row["symbol"], row["valid_from"]): row["quantity"] for row in rows}


async def open_symbols(served: Served, portfolio: UUID) -> list[str]:
    """The symbols with an open position, now or in the future."""
    last = {symbol: (day, quantity) for (symbol, day), quantity in sorted((await positions(served, portfolio)).items())}
    return [symbol for symbol, (day, quantity) in last.items() if quantity or day.year == 2099]


@pytest.mark.parametrize("view", VIEWS)
async def test_without_a_valid_token_nothing_is_revealed_not_even_what_exists(view: str, guarded: Served) -> None:
    expired = bearer(exp=int(time.time()) - 60)
    for portfolio in (PORTFOLIO, UNKNOWN, "nonsense"):
        path = f"/portfolios/{portfolio}/{view}"
        assert await guarded.get(path) == (401, {"error": "an access token is needed"})
        assert await guarded.get(path, headers=expired) == (401, {"error": "the access token has expired"})


async def test_a_401_has_the_header_www_authenticate(guarded: Served, session: ClientSession) -> None:
    url = f"{guarded.url}/portfolios/{PORTFOLIO}/live"
    async with session.get(url) as response:
        assert response.headers["WWW-Authenticate"] == "Bearer"
    async with session.get(url, headers={"Authorization": "Bearer x.y.z"}) as response:
        assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("view", ["live", "history"])
async def test_an_owner_sees_their_own_portfolio(view: str, guarded: Served) -> None:
    status, answer = await guarded.get(f"/portfolios/{PORTFOLIO}/{view}", headers=bearer())
    assert (status, answer["portfolio_id"]) == (200, str(PORTFOLIO))


@pytest.mark.parametrize("view", VIEWS)
async def test_another_users_portfolio_is_answered_like_a_missing_one(view: str, guarded: Served) -> None:
    for portfolio in (OTHERS, UNKNOWN):
        answer = await guarded.get(f"/portfolios/{portfolio}/{view}", headers=bearer())
        assert answer == (404, {"error": f"no portfolio {portfolio}"})


async def test_keys_that_cannot_be_fetched_are_503(guarded: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise KeysUnavailable

    monkeypatch.setattr(guarded.api._guard, "caller", fail)
    answer = await guarded.get(f"/portfolios/{PORTFOLIO}/live", headers=bearer())
    assert answer == (503, {"error": "access tokens cannot be checked now"})


async def test_routes_for_the_platform_need_no_token(guarded: Served, session: ClientSession) -> None:
    internal = [guarded.internal_url + path for path in ("/healthz", "/metrics", "/background/status", "/openapi.json")]
    for url in (guarded.url + "/healthz", guarded.url + "/openapi.json", *internal):
        async with session.get(url) as response:
            assert response.status == 200


async def test_a_stream_is_the_owner_s_and_ends_when_the_token_has_expired(
    guarded: Served, session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{guarded.url}/portfolios/{PORTFOLIO}/stream"
    monkeypatch.setattr("service.api.auth.LEEWAY", 0.0)
    expires = int(time.time()) + 4
    async with session.get(url, headers=bearer(exp=expires)) as response:
        assert response.status == 200
        async with asyncio.timeout(20):
            await response.read()
    assert time.time() >= expires


async def test_each_user_has_a_separate_limit_of_streams(guarded: Served, session: ClientSession) -> None:
    guarded.api._quota._limit = 2
    url = f"{guarded.url}/portfolios/{PORTFOLIO}/stream"
    async with session.get(url, headers=bearer()), session.get(url, headers=bearer()):
        answer = await guarded.get(f"/portfolios/{PORTFOLIO}/stream", headers=bearer())
        assert answer == (429, {"error": "2 streams are open already"})
        async with session.get(f"{guarded.url}/portfolios/{OTHERS}/stream", headers=bearer(OTHER)) as response:
            assert response.status == 200
    async with asyncio.timeout(20):
        while guarded.api._quota._open:  # noqa: ASYNC110 - no event reports that a client has left
            await asyncio.sleep(0.01)
    async with session.get(url, headers=bearer()) as response:
        assert response.status == 200


async def test_the_owner_writes_positions_from_a_date_on_and_may_repeat_the_request(guarded: Served) -> None:
    before = await positions(guarded, PORTFOLIO)
    text = body(("KO", "2.5", "2026-03-02"), ("AAPL", "0", "2026-03-02"))
    for _ in range(2):
        status, answer = await put(guarded, PORTFOLIO, text)
        assert (status, answer) == (
            200,
            {"portfolio_id": str(PORTFOLIO), "written": 2, "positions": len(before) + 2},
        )
    day = date(2026, 3, 2)
    added = {("KO", day): Decimal("2.5"), ("AAPL", day): Decimal(0)}
    assert await positions(guarded, PORTFOLIO) == before | added
    await put(guarded, PORTFOLIO, body(("KO", "3", "2026-03-02")))
    assert (await positions(guarded, PORTFOLIO))["KO", day] == 3


@pytest.mark.parametrize("portfolio", [OTHERS, UNKNOWN])
async def test_a_user_cannot_write_to_another_users_portfolio_or_create_one(portfolio: object, guarded: Served) -> None:
    before = await positions(guarded, OTHERS)
    answer = await put(guarded, portfolio, body(("KO", "2", "2026-03-02")))
    assert answer == (404, {"error": f"no portfolio {portfolio}"})
    assert await positions(guarded, OTHERS) == before
    assert await guarded.store.owner(UUID(UNKNOWN)) is None


async def test_a_portfolio_that_changes_owner_during_the_request_is_not_written(
    guarded: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def was_mine(_: UUID) -> UUID:
        return OWNER

    before = await positions(guarded, OTHERS)
    monkeypatch.setattr(guarded.store, "owner", was_mine)
    status, _ = await put(guarded, OTHERS, body(("KO", "2", "2026-03-02")))
    assert (status, await positions(guarded, OTHERS)) == (404, before)


async def test_wrong_fields_are_named_and_nothing_is_written(guarded: Served) -> None:
    before = await positions(guarded, PORTFOLIO)
    status, answer = await put(guarded, PORTFOLIO, body(("KO", "2", "2026-03-02"), ("ko", "-1", "2026-03-02")))
    assert status == 400
    assert (answer["field"], [error["field"] for error in answer["errors"]]) == (
        "[1].symbol",
        ["[1].symbol", "[1].quantity"],
    )
    assert await positions(guarded, PORTFOLIO) == before


async def test_a_portfolio_has_a_limited_number_of_open_positions(
    guarded: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await positions(guarded, PORTFOLIO)
    most = len(await open_symbols(guarded, PORTFOLIO)) + 1
    monkeypatch.setattr("service.database.position_writes.MAX_OPEN_POSITIONS", most)
    for day in ("2020-03-02", "2099-03-02"):  # open now or in the future
        status, answer = await put(guarded, PORTFOLIO, body(("V", "1", "2020-03-02"), ("W", "1", day)))
        assert (status, answer) == (409, {"error": f"more than {most} open positions"})
        assert await positions(guarded, PORTFOLIO) == before


async def test_closed_positions_do_not_count_however_often_they_were_traded(
    guarded: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def status_of(*entries: tuple[str, str, str]) -> int:
        return (await put(guarded, PORTFOLIO, body(*entries)))[0]

    monkeypatch.setattr(
        "service.database.position_writes.MAX_OPEN_POSITIONS", len(await open_symbols(guarded, PORTFOLIO)) + 1
    )
    for month in range(1, 10):
        traded = f"X{month}"
        assert await status_of((traded, "1", f"2020-{month:02}-02"), (traded, "0", f"2020-{month:02}-03")) == 200
    assert await status_of(("X", "1", "2020-10-02")) == 200
    assert await status_of(("X", "2", "2020-10-03")) == 200, "X is open already"
    assert await status_of(("Y", "1", "2020-10-04")) == 409
    assert await status_of(("X", "0", "2099-10-04"), ("Y", "1", "2020-10-04")) == 409, "X is still held"
    assert await status_of(("X", "0", "2020-10-04"), ("Y", "1", "2020-10-04")) == 200


async def test_a_portfolio_has_a_limited_number_of_entries_past_ones_included(
    guarded: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await positions(guarded, PORTFOLIO)
    monkeypatch.setattr("service.database.position_writes.MAX_ENTRIES", len(before) + 1)
    answer = await put(guarded, PORTFOLIO, body(("Z", "1", "2020-03-02"), ("Z", "0", "2020-03-03")))
    assert answer == (409, {"error": f"more than {len(before) + 1} entries, past ones included"})
    assert await positions(guarded, PORTFOLIO) == before


async def test_a_user_with_too_many_positions_may_close_some_and_open_none(
    guarded: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await put(guarded, PORTFOLIO, body(("P", "1", "2020-01-02"), ("Q", "1", "2020-01-02"))))[0] == 200
    monkeypatch.setattr("service.database.position_writes.MAX_OPEN_POSITIONS", 0)
    for symbol, quantity, status in (("P", "0", 200), ("Q", "77", 200), ("R", "1", 409)):
        assert (await put(guarded, PORTFOLIO, body((symbol, quantity, "2020-01-03"))))[0] == status


async def test_a_body_that_is_not_json_is_415_and_one_that_is_too_large_413(guarded: Served) -> None:
    assert await put(guarded, PORTFOLIO, "[]", headers={"Content-Type": "text/csv"}) == (
        415,
        {"error": "not application/json"},
    )
    status, answer = await put(guarded, PORTFOLIO, "[" + " " * limits.MAX_BODY + "]")
    assert (status, answer.keys()) == (413, {"error"})


async def test_a_content_length_that_is_too_large_is_413_before_the_body_arrives(guarded: Served) -> None:
    head = await head_of_the_answer(guarded, limits.MAX_BODY + 1)
    assert head.startswith("HTTP/1.1 413")


async def test_a_body_that_does_not_match_its_content_encoding_is_400(
    guarded: Served, caplog: pytest.LogCaptureFixture
) -> None:
    status, answer = await put(
        guarded, PORTFOLIO, "no gzip at all", headers={"Content-Encoding": "gzip"}, compress=None
    )
    assert (status, answer["field"], answer["error"]) == (400, "body", "does not match its Content-Encoding")
    assert not [record for record in caplog.records if record.name.startswith("service")]


async def test_a_body_that_does_not_arrive_is_408(guarded: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_LIMIT", 0.1)
    assert (await head_of_the_answer(guarded, 100)).startswith("HTTP/1.1 408")


async def head_of_the_answer(guarded: Served, announced: int) -> str:
    """The status line of the answer to a write, after only the first byte of the body was sent."""
    host, port = guarded.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"PUT /portfolios/{PORTFOLIO}/positions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {announced}\r\nAuthorization: {bearer()['Authorization']}\r\n\r\n[".encode()
    )
    async with asyncio.timeout(20):
        head = await reader.readline()
    writer.close()
    return head.decode()


async def test_an_answer_that_takes_too_long_is_503(guarded: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: UUID) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(middleware, "ANSWER_LIMIT", 0.1)
    monkeypatch.setattr(guarded.store, "owner", hang)
    answer = await guarded.get(f"/portfolios/{PORTFOLIO}/live", headers=bearer())
    assert answer == (503, {"error": "no answer in 0.1 s"})


async def test_a_database_that_fails_while_writing_is_503(guarded: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise StoreError("database: away")

    monkeypatch.setattr(guarded.store, "put_own_positions", fail)
    answer = await put(guarded, PORTFOLIO, body(("KO", "2", "2026-03-02")))
    assert answer == (503, {"error": "the database is not available"})


async def test_without_authentication_everybody_reads_and_writes_everything(served: Served) -> None:
    status, _ = await put(served, OTHERS, body(("KO", "2", "2026-03-02")), headers={"Authorization": "whatever"})
    assert status == 200
    assert await served.store.owner(OTHERS) == OTHER


async def test_two_simultaneous_writes_cannot_exceed_the_limit_together(
    guarded: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(await open_symbols(guarded, PORTFOLIO))
    monkeypatch.setattr("service.database.position_writes.MAX_OPEN_POSITIONS", before + 1)
    entries = [read_entries(body((symbol, "1", "2020-04-01")).encode(), PORTFOLIO, OWNER) for symbol in ("V", "W")]
    results = await asyncio.gather(
        *(guarded.store.put_own_positions(PORTFOLIO, OWNER, some) for some in entries), return_exceptions=True
    )
    assert {type(result) for result in results} == {int, TooManyPositions}
