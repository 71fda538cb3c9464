"""POST /resign/NAME: who may resign, and which term."""

from collections.abc import AsyncIterator

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from tests.support.served_control import KEYS, Served, served
from tests.support.waiting import eventually

CLIENT = {"X-Lease-Client": "test"}


@pytest.fixture
async def sidecar(redis_server: RedisServer, redis: Redis) -> AsyncIterator[Served]:
    async with served(redis_server) as sidecar:
        yield sidecar


async def test_a_resign_needs_the_header(sidecar: Served, redis: Redis) -> None:
    await sidecar.lead()
    status, answer = await sidecar.refusal("POST", "/resign/tracker")
    assert (status, "X-Lease-Client" in answer["error"]) == (403, True)
    assert redis.get(KEYS["tracker"]) == "a"


@pytest.mark.parametrize(
    "host", ["example.com", "localhost.example.com", "127.0.0.1.example.com", "10.0.0.7:4040", "[2001:db8::1]",
             "2130706433", "[::1", "", "localhost@example.com"],
)  # fmt: skip
async def test_a_resign_needs_a_loopback_host(sidecar: Served, redis: Redis, host: str) -> None:
    """A web page that uses DNS rebinding, or a server that is tricked into the request, sends another Host header."""
    await sidecar.lead()
    status, answer = await sidecar.refusal("POST", "/resign/tracker", headers={**CLIENT, "Host": host})
    assert (status, list(answer)) == (403, ["error"])
    assert redis.get(KEYS["tracker"]) == "a"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:4040", "127.0.0.1", "127.1.2.3:80", "[::1]:4040"])
async def test_a_resign_accepts_every_name_of_the_loopback(sidecar: Served, redis: Redis, host: str) -> None:
    await sidecar.lead()
    async with sidecar.session.post(f"{sidecar.url}/resign/tracker", headers={**CLIENT, "Host": host}) as response:
        assert response.status == 200
    await eventually(lambda: redis.get(KEYS["tracker"]) is None)


async def resigned(sidecar: Served, token: int | None = None) -> object:
    query = "" if token is None else f"?token={token}"
    async with sidecar.session.post(f"{sidecar.url}/resign/tracker{query}", headers=CLIENT) as response:
        assert response.status == 200
        return (await response.json())["resigned"]


async def test_a_resign_may_name_its_term_and_releases_no_other_term(sidecar: Served, redis: Redis) -> None:
    token = (await sidecar.lead())["token"]
    assert await resigned(sidecar, token - 1) is False
    assert (await sidecar.get("/is-leader/tracker"))["token"] == token
    assert await resigned(sidecar, token) is True
    await eventually(lambda: redis.get(KEYS["tracker"]) is None)


async def test_a_resign_by_another_client_does_not_end_the_term(sidecar: Served, redis: Redis) -> None:
    await sidecar.lead()
    named = {"X-Lease-Client": "another"}
    async with sidecar.session.get(f"{sidecar.url}/is-leader/tracker", headers=named) as response:
        answer = await response.json()
    assert answer["is_leader"] is True
    assert await resigned(sidecar, answer["token"]) is False
    assert redis.get(KEYS["tracker"]) == "a"


@pytest.mark.parametrize("query", ["", "?unknown=1"], ids=["the fast path", "the application"])
async def test_clients_whose_names_differ_only_at_the_end_do_not_both_lead(
    sidecar: Served, redis: Redis, query: str
) -> None:
    first, second = ({"X-Lease-Client": f"{'task-' * 200}{process}"} for process in (1, 2))
    await sidecar.lead()
    leads = []
    for headers in (first, second, first):
        async with sidecar.session.get(f"{sidecar.url}/is-leader/tracker{query}", headers=headers) as response:
            leads.append((await response.json())["is_leader"])
    assert leads == [True, False, True]
    async with sidecar.session.post(f"{sidecar.url}/resign/tracker", headers=second) as response:
        assert (await response.json())["resigned"] is False
    assert redis.get(KEYS["tracker"]) == "a"


async def test_a_resign_of_a_lease_that_is_not_led_succeeds(sidecar: Served) -> None:
    assert await resigned(sidecar, 1) is False
    assert await resigned(sidecar) is True
    assert await resigned(sidecar) is True


@pytest.mark.parametrize("token", ["", "x", "-1", "1.5", "1" * 17])
async def test_an_invalid_token_is_400_and_releases_nothing(sidecar: Served, redis: Redis, token: str) -> None:
    await sidecar.lead()
    status, answer = await sidecar.refusal("POST", f"/resign/tracker?token={token}", headers=CLIENT)
    assert (status, answer["error"].startswith("token: ")) == (400, True)
    assert redis.get(KEYS["tracker"]) == "a"


async def test_a_resign_releases_only_the_named_lease(sidecar: Served, redis: Redis) -> None:
    for name in KEYS:
        await sidecar.lead(name)
    await sidecar.resign("tracker")
    await eventually(lambda: redis.get(KEYS["tracker"]) is None)
    assert (await sidecar.get("/is-leader/scheduler"))["is_leader"] is True
