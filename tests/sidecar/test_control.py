"""The HTTP contract of the sidecar: each request and its answer."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import product

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from runtime.clock import elapsed
from sidecar.redis.watch import WatchMode
from sidecar.telemetry import log_to_stdout
from tests.sidecar.conftest import client_of, command
from tests.support.listening import leave_before_the_continue
from tests.support.outputs import flush_log
from tests.support.served_control import KEYS, QUICK, TIMINGS, Served, served
from tests.support.waiting import eventually

CLIENT = {"X-Lease-Client": "test"}


@pytest.fixture
async def sidecar(redis_server: RedisServer, redis: Redis) -> AsyncIterator[Served]:
    async with served(redis_server) as sidecar:
        yield sidecar


async def test_one_lease_is_reported_with_every_field_of_the_contract(sidecar: Served, redis: Redis) -> None:
    redis.set(KEYS["tracker"], "b", ex=60)
    first = await sidecar.get("/is-leader/tracker")
    assert (first["token"], first["expires_in"], first["is_leader"]) == (None, None, False)
    redis.delete(KEYS["tracker"])
    answer = await sidecar.lead()
    assert set(answer) == set(first) == {
        "lease", "is_leader", "instance_id", "holder", "token", "expires_in", "state", "version",
    }  # fmt: skip
    assert (answer["lease"], answer["instance_id"], answer["holder"], answer["state"]) == (
        "tracker",
        "a",
        "a",
        "leading",
    )
    assert isinstance(answer["token"], int)
    assert isinstance(answer["version"], str)
    assert answer["expires_in"] > 0


async def test_the_first_request_waits_for_the_first_reply_of_redis(sidecar: Served) -> None:
    """A 'no' before this reply would end the work of a client whose sidecar was restarted."""
    assert (await sidecar.get("/is-leader/tracker"))["is_leader"] is True


async def test_a_grant_starts_when_its_request_arrives(sidecar: Served) -> None:
    answer = await sidecar.lead()
    assert (await sidecar.get("/is-leader/tracker"))["expires_in"] == pytest.approx(TIMINGS.grant_ttl, abs=1e-6)
    held = await sidecar.get("/is-leader/tracker", wait=0.1, version=answer["version"])
    assert held["expires_in"] == pytest.approx(TIMINGS.grant_ttl, abs=1e-6), "the wait does not shorten the grant"


@pytest.mark.parametrize("path", ["/is-leader", "/is-leader/tracker"])
@pytest.mark.parametrize("client", [{}, CLIENT, {"Expect": "a miracle"}, {"Expect": "100-continue"}])
async def test_the_fast_path_and_the_application_give_the_same_answer(
    sidecar: Served, path: str, client: dict[str, str]
) -> None:
    """The listener answers a request without a query or an Expect header; the application answers the others."""
    for name in KEYS:
        await sidecar.lead(name)
    answers = []
    for query in ("", "?unknown=1"):
        async with sidecar.session.get(f"{sidecar.url}{path}{query}", headers=client) as response:
            headers = {
                name: value for name, value in response.headers.items() if name not in ("Date", "Content-Length")
            }
            text = re.sub(r'("expires_in": )[0-9.]+', r"\1", await response.text())
            answers.append((response.status, headers, text))
    assert answers[0] == answers[1]


async def test_a_request_takes_the_fast_path_once_redis_has_replied(
    sidecar: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The router and the middlewares would take most of the time of an answer."""
    await sidecar.lead()

    async def fail(*_: object) -> None:
        raise RuntimeError("the application answers")

    monkeypatch.setattr(sidecar.candidate, "first_replies", fail)
    assert (await sidecar.get("/is-leader/tracker"))["is_leader"] is True
    assert (await sidecar.refusal("GET", "/is-leader/tracker?token=1"))[0] == 500


async def test_a_request_on_the_fast_path_counts_as_demand(redis_server: RedisServer, redis: Redis) -> None:
    redis.set(KEYS["tracker"], "b", ex=60)
    async with served(redis_server, timings=QUICK) as sidecar:
        answer, until = await sidecar.get("/is-leader/tracker"), elapsed() + 2 * QUICK.demand
        while elapsed() < until:
            await asyncio.sleep(QUICK.demand / 20)
            answer = await sidecar.get("/is-leader/tracker")
        assert answer["state"] == "following"


async def test_leader_all_is_true_only_if_every_lease_is_led(sidecar: Served, redis: Redis) -> None:
    redis.set(KEYS["scheduler"], "b", ex=30)
    await sidecar.get("/is-leader/scheduler")
    await eventually(sidecar.candidate._leases["scheduler"].heard_from_redis)
    await sidecar.lead("tracker")
    answer = await sidecar.get("/is-leader")
    assert (answer["instance_id"], answer["is_leader"]) == ("a", False)
    assert {name: lease["is_leader"] for name, lease in answer["leases"].items()} == {
        "tracker": True,
        "scheduler": False,
    }
    assert answer["leases"]["scheduler"]["holder"] == "b"
    redis.delete(KEYS["scheduler"])
    await sidecar.lead("scheduler")
    assert (await sidecar.get("/is-leader"))["is_leader"] is True


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/is-leader/none"), ("GET", "/leader/none"), ("POST", "/resign/none")]
)
async def test_an_unknown_lease_is_404_with_the_known_names(sidecar: Served, method: str, path: str) -> None:
    status, answer = await sidecar.refusal(method, path, headers=CLIENT)
    assert status == 404
    assert answer["leases"] == ["tracker", "scheduler"]
    assert "none" in answer["error"]


@pytest.mark.parametrize("path", ["/is-leader", "/is-leader/tracker"])
@pytest.mark.parametrize(
    "query",
    ["wait=0", "wait=-1", "wait=30.01", "wait=nan", "wait=inf", "wait=", "wait=x", "wait=1.2.3", "wait=1&version=",
     "version=1", "version=abc-", "version=%20", "version=" + "9" * 500, "version=<script>"],
)  # fmt: skip
async def test_an_invalid_wait_or_version_is_400_and_creates_no_demand(sidecar: Served, path: str, query: str) -> None:
    status, answer = await sidecar.refusal("GET", f"{path}?{query}")
    assert status == 400
    assert answer["error"].startswith(("wait: ", "version: "))
    assert len(answer["error"]) < 200
    assert await sidecar.state() == "waiting"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/is-leader/a/b", 404), ("POST", "/is-leader/tracker", 405),
     ("GET", "/resign/tracker", 405), ("DELETE", "/leader/tracker", 405), ("PUT", "/status", 405)],
)  # fmt: skip
async def test_unknown_paths_and_methods_are_refused_in_json(
    sidecar: Served, method: str, path: str, status: int
) -> None:
    answered, answer = await sidecar.refusal(method, path, headers=CLIENT)
    assert (answered, list(answer)) == (status, ["error"])


@pytest.mark.parametrize("path", ["/is-leader/tracker", "/nowhere"])
async def test_an_unknown_expect_header_is_refused_in_json_and_creates_no_demand(sidecar: Served, path: str) -> None:
    for url in (sidecar.url, sidecar.metrics_url):
        async with sidecar.session.get(f"{url}{path}", headers={"Expect": "a miracle"}) as response:
            assert (response.status, list(await response.json())) == (417, ["error"])
    assert await sidecar.state() == "waiting"


async def test_an_internal_error_is_500_in_json(sidecar: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: float) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(sidecar.candidate._leases["tracker"], "remaining", fail)
    assert await sidecar.refusal("GET", "/status") == (500, {"error": "Internal Server Error: GET /status"})


async def test_leader_probe_gets_its_answer_as_a_status_on_both_listeners(sidecar: Served) -> None:
    async def statuses() -> set[int]:
        seen = set()
        for method, url in product(("GET", "HEAD"), (sidecar.url, sidecar.metrics_url)):
            async with sidecar.session.request(method, f"{url}/leader/tracker") as response:
                seen.add(response.status)
        return seen

    assert await statuses() == {503}
    await sidecar.lead()
    assert await statuses() == {200}
    async with sidecar.session.get(f"{sidecar.metrics_url}/leader/none") as response:
        assert response.status == 404
        assert await response.json() == {"error": "there is no lease 'none'", "leases": ["tracker", "scheduler"]}
    async with sidecar.session.post(f"{sidecar.metrics_url}/leader/tracker") as response:
        assert response.status == 405


async def test_status_health_metrics_and_probes_create_no_demand(sidecar: Served, redis: Redis) -> None:
    for _ in range(3):
        for path in ("/status", "/healthz"):
            await sidecar.get(path)
        for method, url in product(("GET", "HEAD"), (sidecar.url, sidecar.metrics_url)):
            async with sidecar.session.request(method, f"{url}/leader/tracker"):
                pass
        async with sidecar.session.head(f"{sidecar.url}/is-leader/tracker") as response:
            assert response.status == 405
        async with sidecar.session.get(f"{sidecar.metrics_url}/metrics"):
            pass
    assert await sidecar.state() == "waiting"
    assert redis.dbsize() == 0


async def test_without_redis_the_first_request_is_answered_within_the_call_limit(
    redis_of_its_own: RedisServer,
) -> None:
    async with served(redis_of_its_own, timings=QUICK) as sidecar:
        redis_of_its_own.pause()
        began = elapsed()
        answer = await sidecar.get("/is-leader/tracker")
        assert elapsed() - began < QUICK.call_limit + 10, "the request waited for longer than one call"
        assert (answer["is_leader"], answer["expires_in"]) == (False, None)
        redis_of_its_own.resume()
        await sidecar.lead()


async def test_a_restarted_sidecar_answers_the_first_request_with_the_same_term(
    redis_server: RedisServer, redis: Redis
) -> None:
    async with served(redis_server) as sidecar:
        token = (await sidecar.lead())["token"]
    async with served(redis_server) as restarted:
        first = await restarted.get("/is-leader/tracker")
        assert (first["is_leader"], first["token"]) == (True, token)


async def test_status_of_a_follower_shows_the_remaining_time_of_the_holders_key(sidecar: Served, redis: Redis) -> None:
    async def holder_remaining() -> float | None:
        remaining: float | None = (await sidecar.get("/status"))["leases"]["tracker"]["holder_remaining"]
        return remaining

    assert await holder_remaining() is None
    redis.set(KEYS["tracker"], "another", px=20_000)
    await sidecar.get("/is-leader/tracker")
    first = await holder_remaining()
    assert first is not None
    assert 5 < first <= 20
    await eventually(lambda: _is_below(holder_remaining, first))
    redis.persist(KEYS["tracker"])
    await eventually(lambda: _is_none(holder_remaining))
    redis.delete(KEYS["tracker"])
    await sidecar.lead()
    led = (await sidecar.get("/status"))["leases"]["tracker"]
    assert led["remaining"] < led["holder_remaining"] <= TIMINGS.ttl


async def test_status_reports_the_trouble_of_each_lease(sidecar: Served, redis: Redis) -> None:
    redis.lpush(KEYS["tracker"], "x")
    await sidecar.get("/is-leader/tracker")

    async def troubled() -> bool:
        return "not a string" in str((await sidecar.get("/status"))["leases"]["tracker"]["trouble"])

    await eventually(troubled)
    status = await sidecar.get("/status")
    assert (status["instance_id"], status["more"]) == ("a", "told")
    assert status["leases"]["tracker"]["is_leader"] is False
    assert status["leases"]["scheduler"]["trouble"] is None


@pytest.mark.parametrize(("seconds", "until"), [(None, "somebody deletes it"), (60, "it expires")])
async def test_an_empty_value_of_the_key_is_a_trouble_and_no_holder(
    sidecar: Served, redis: Redis, seconds: int | None, until: str
) -> None:
    redis.set(KEYS["tracker"], "", ex=seconds)
    answer = await sidecar.get("/is-leader/tracker")
    assert (answer["is_leader"], answer["holder"]) == (False, None)

    async def trouble() -> str:
        return str((await sidecar.get("/status"))["leases"]["tracker"]["trouble"] or "")

    await eventually(trouble)
    assert await trouble() == f"the key has an empty value: nobody leads until {until}"
    assert await sidecar.metric('sidecar_follows_holder{lease="tracker"}') == 0
    redis.set(KEYS["tracker"], "b", ex=60)
    await eventually(lambda: _follows(sidecar))


async def _follows(sidecar: Served) -> bool:
    await sidecar.get("/is-leader/tracker")
    return await sidecar.metric('sidecar_follows_holder{lease="tracker"}') == 1


async def test_the_sidecar_is_healthy_only_while_its_loop_runs(
    sidecar: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sidecar.get("/healthz")
    stuck = asyncio.Event()

    async def hang(*_: object) -> None:
        stuck.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(sidecar.candidate._store, "execute", hang)
    asking = asyncio.create_task(sidecar.get("/is-leader"))
    await stuck.wait()
    await sidecar.get("/healthz")
    sidecar.candidate._progress_at = elapsed() - 10 * TIMINGS.ttl
    await asking
    assert (await sidecar.refusal("GET", "/healthz"))[0] == 503
    async with sidecar.session.get(f"{sidecar.metrics_url}/healthz") as response:
        assert response.status == 503


async def test_ten_thousand_polls_cause_no_command_in_redis(sidecar: Served, redis: Redis) -> None:
    await sidecar.lead()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sidecar.url.rpartition(":")[2]))
    before, began = _scripts_run(redis), elapsed()
    for _ in range(200):
        writer.write(b"GET /is-leader/tracker HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
        for _ in range(50):
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            assert b'"is_leader": true' in await reader.readuntil(b"}")
    beats = (elapsed() - began) / TIMINGS.heartbeat + 1
    assert _scripts_run(redis) - before <= 2 * beats, "the renewals, and a check of the key after each renewal"
    writer.close()
    await writer.wait_closed()


def _scripts_run(redis: Redis) -> int:
    """The number of scripts that Redis has run so far. For a lease the sidecar sends only scripts."""
    return int(redis.info("commandstats").get("cmdstat_eval", {}).get("calls", 0))


async def test_metrics_show_the_client_the_renewals_and_the_redis_server(sidecar: Served, redis: Redis) -> None:
    began = elapsed()
    await sidecar.lead()
    asked = elapsed()
    await sidecar.get("/is-leader/tracker")
    answered = elapsed()
    silence = await sidecar.metric('sidecar_client_last_poll_seconds{lease="tracker"}')
    assert 0 <= silence <= elapsed() - asked
    await eventually(lambda: elapsed() > answered + 0.05)
    assert await sidecar.metric('sidecar_client_last_poll_seconds{lease="tracker"}') > 0.05
    assert 0 < await sidecar.metric('sidecar_lease_remaining_seconds{lease="tracker"}') <= TIMINGS.ttl * 5 / 6

    async def renewed() -> bool:
        await sidecar.get("/is-leader/tracker")
        return await sidecar.metric("sidecar_renewal_duration_seconds_count") > 0

    await eventually(renewed)
    assert 0 < await sidecar.metric("sidecar_renewal_duration_seconds_sum") < elapsed() - began
    assert await sidecar.metric("sidecar_redis_up") == 1
    assert await sidecar.metric('sidecar_failover_guard{guard="off"}') == 1
    assert await sidecar.metric('sidecar_redis_eviction_policy{policy="noeviction"}') == 1


async def test_a_refused_info_disables_the_failover_guard_and_is_reported(
    redis_of_its_own: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with client_of(redis_of_its_own) as redis:
        command(redis, "ACL", "SETUSER", "default", "-info")
    async with served(redis_of_its_own, guard=True) as sidecar:
        await sidecar.lead()
        assert await sidecar.metric('sidecar_failover_guard{guard="unavailable"}') == 1
        assert [record.getMessage() for record in caplog.records if "No failover guard" in record.getMessage()]


async def test_the_metrics_listener_serves_metrics_and_refuses_commands(sidecar: Served, redis: Redis) -> None:
    answer = await sidecar.lead()
    await eventually(lambda: sidecar.watch.mode is WatchMode.TRACKING)
    async with sidecar.session.get(f"{sidecar.metrics_url}/metrics") as response:
        metrics = await response.text()
        assert response.content_type == "text/plain"
    assert 'sidecar_leading{lease="tracker"} 1.0' in metrics
    assert 'sidecar_leading{lease="scheduler"} 0.0' in metrics
    assert 'sidecar_state{lease="tracker",state="leading"} 1.0' in metrics
    assert 'sidecar_transitions_total{lease="tracker",reason="acquired",to="leader"} 1.0' in metrics
    [token] = re.findall(r'^sidecar_token\{lease="tracker"\} (.+)$', metrics, re.MULTILINE)
    assert float(token) == answer["token"]
    assert 'sidecar_watch_mode{mode="tracking"} 1.0' in metrics
    for method, path in (("POST", "/resign/tracker"), ("GET", "/is-leader/tracker"), ("GET", "/status")):
        async with sidecar.session.request(method, f"{sidecar.metrics_url}{path}", headers=CLIENT) as response:
            assert response.status == 404
    assert redis.get(KEYS["tracker"]) == "a"


MALFORMED = {
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no http": b"hello\r\n\r\n",
    "a long url": b"GET /healthz?" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    "a header without a name": b"GET /healthz HTTP/1.1\r\n: x\r\n\r\n",
    "a negative length": b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "a bad chunk": b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a chunk too long": b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd",
    "a bad version": b"GET /healthz HTTP/9.x\r\nHost: localhost\r\n\r\n",
    "bytes that are not text": b"GET /\xff\xfe\x00 HTTP/1.1\r\nHost: \xff\r\n\r\n",
}


@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED)
async def test_invalid_http_harms_no_other_client_and_causes_no_log_line(
    sidecar: Served, request_: bytes, logging_as_it_was: None, capfd: pytest.CaptureFixture[str]
) -> None:
    await eventually(lambda: sidecar.watch.mode is WatchMode.TRACKING)
    log_to_stdout("text", "INFO")
    for url in (sidecar.url, sidecar.metrics_url):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(request_)
        async with asyncio.timeout(10):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
        assert json.loads(body)["error"].startswith("malformed HTTP: ")
        assert len(body) < 300
        writer.close()
        await writer.wait_closed()
        async with sidecar.session.get(f"{url}/healthz") as response:
            assert response.status == 200
    flush_log()
    assert capfd.readouterr() == ("", "")


async def test_clients_that_leave_before_100_continue_cause_no_log_line(
    sidecar: Served, logging_as_it_was: None, capfd: pytest.CaptureFixture[str]
) -> None:
    await eventually(lambda: sidecar.watch.mode is WatchMode.TRACKING)
    log_to_stdout("text", "INFO")
    for url in (sidecar.url, sidecar.metrics_url):
        await leave_before_the_continue(url)
        async with sidecar.session.get(f"{url}/healthz") as response:
            assert response.status == 200
    flush_log()
    assert capfd.readouterr() == ("", "")


async def _is_below(value: Callable[[], Awaitable[float | None]], limit: float) -> bool:
    found = await value()
    return found is not None and found < limit


async def _is_none(value: Callable[[], Awaitable[float | None]]) -> bool:
    return await value() is None
