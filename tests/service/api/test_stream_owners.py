"""A stream ends when the portfolio changes owner. The stream shows no value that was written after the change."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from aiohttp import ClientResponse

from service.api import streams
from service.commands.samples import load_samples
from tests.service.api.test_owner import OTHER, OWNER, bearer, guarded
from tests.service.api.test_streams import line
from tests.support.served_api import PORTFOLIO, Served

__all__ = ["guarded"]

URL = f"/portfolios/{PORTFOLIO}/stream"
GIVE = "update portfolio set user_id = $2 where id = $1"
DELETE = "delete from portfolio where id = $1 and $2::uuid is not null"


@pytest.fixture
async def admin(shared_url: str, guarded: Served) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection that changes the owners of portfolios. After the test, the samples and the triggers are restored."""
    admin = await asyncpg.connect(shared_url)
    yield admin
    await admin.execute("alter table portfolio enable trigger user")
    await admin.execute(GIVE, PORTFOLIO, OWNER)
    await load_samples(guarded.store)
    await admin.close()


@pytest.fixture
async def streaming(guarded: Served) -> AsyncIterator[Served]:
    """The API with a shared secret and the task that serves its streams."""
    task = asyncio.create_task(guarded.streams.run(guarded.store))
    yield guarded
    task.cancel()
    await asyncio.wait((task,))


async def end_of(response: ClientResponse) -> bytes:
    """The rest of the stream, which ends by itself."""
    async with asyncio.timeout(20):
        return await response.content.read()


@pytest.mark.parametrize("change", [GIVE, DELETE], ids=["given", "deleted"])
async def test_a_stream_ends_when_the_portfolio_changes_owner_even_without_a_new_value(
    change: str, streaming: Served, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with streaming.session.get(streaming.url + URL, headers=bearer()) as response:
        assert await line(response, b"data:")
        await admin.execute(change, PORTFOLIO, OTHER)
        assert b"data:" not in await end_of(response)
    answer = await streaming.get(URL, headers=bearer())
    assert answer == (404, {"error": f"no portfolio {PORTFOLIO}"})


@pytest.mark.parametrize("kept", ["Connection: keep-alive\r\n", ""], ids=["keep-alive", "no header"])
async def test_the_end_of_a_stream_closes_the_connection_of_an_http_1_0_client(
    kept: str, streaming: Served, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    reader, writer = await asyncio.open_connection(*streaming.url.removeprefix("http://").split(":"))
    login = bearer()["Authorization"]
    writer.write(f"GET {URL} HTTP/1.0\r\n{kept}Authorization: {login}\r\n\r\n".encode())
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"data:")
        await admin.execute(DELETE, PORTFOLIO, OTHER)
        await reader.read()  # returns when the server closes the connection
    writer.close()
    assert b"keep-alive" not in head.lower()


async def test_the_new_owner_s_stream_continues(streaming: Served, admin: "asyncpg.Connection[asyncpg.Record]") -> None:
    await admin.execute(GIVE, PORTFOLIO, OTHER)
    async with streaming.session.get(streaming.url + URL, headers=bearer(OTHER)) as response:
        assert await line(response, b"data:")
        await streaming.write_live("11")
        assert b'"value":"11.0000"' in await line(response, b"data:")


@pytest.mark.parametrize("found_by", ["the next value", "the clock"])
async def test_an_owner_change_without_notification_is_found_before_a_later_value_is_shown(
    found_by: str,
    guarded: Served,
    admin: "asyncpg.Connection[asyncpg.Record]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "OWNER_INTERVAL", 0.05 if found_by == "the clock" else 3600.0)
    await admin.execute("alter table portfolio disable trigger notify_given")
    task = asyncio.create_task(guarded.streams.run(guarded.store))
    async with guarded.session.get(guarded.url + URL, headers=bearer()) as response:
        assert await line(response, b"data:")
        await admin.execute(GIVE, PORTFOLIO, OTHER)
        if found_by == "the next value":
            await guarded.write_live("12")
        assert b"data:" not in await end_of(response)
    task.cancel()
    await asyncio.wait((task,))


async def test_a_stream_shows_every_field_that_a_single_answer_shows(
    streaming: Served, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """The comparison includes fields from other tables, such as the symbols without a price."""
    await admin.execute("update portfolio_live set priced_fraction = 0.5 where portfolio_id = $1", PORTFOLIO)
    async with streaming.session.get(streaming.url + URL, headers=bearer()) as response:
        shown = json.loads((await line(response, b"data:")).removeprefix(b"data:"))
    status, answer = await streaming.get(f"/portfolios/{PORTFOLIO}/live", headers=bearer())
    assert (status, shown) == (200, answer)
    assert shown["unpriced_symbols"]


@pytest.mark.parametrize(("view", "read"), [("live", "live_of_owners"), ("history", "history")])
async def test_a_portfolio_that_changes_owner_between_check_and_read_is_not_shown(
    view: str,
    read: str,
    guarded: Served,
    admin: "asyncpg.Connection[asyncpg.Record]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = getattr(guarded.store, read)

    async def given_away_first(*arguments: Any) -> Any:
        await admin.execute(GIVE, PORTFOLIO, OTHER)
        return await real(*arguments)

    monkeypatch.setattr(guarded.store, read, given_away_first)
    answer = await guarded.get(f"/portfolios/{PORTFOLIO}/{view}", headers=bearer())
    assert answer == (404, {"error": f"no portfolio {PORTFOLIO}"})


async def test_without_authentication_a_stream_lasts_until_the_portfolio_is_deleted(
    streaming: Served, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    with streaming.streams.subscriber(PORTFOLIO) as anybody:
        values = aiter(anybody)
        await anext(values)
        await admin.execute(GIVE, PORTFOLIO, OTHER)
        await streaming.write_live("13")
        async with asyncio.timeout(20):
            assert str((await anext(values)).value) == "13.0000"
            await admin.execute(DELETE, PORTFOLIO, OTHER)
            with pytest.raises(StopAsyncIteration):
                while True:
                    await anext(values)
