"""A login by ElastiCache IAM: the cache checks tokens with botocore, and an endpoint gives credentials as on ECS."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from ssl import Purpose, create_default_context

import aiohttp
import pytest
from aiohttp import web

from ops.local.servers import RedisServer
from runtime.clock import elapsed
from runtime.lookup import Lookups
from sidecar.election.candidate import Candidate
from sidecar.election.lease import Lease
from sidecar.iam_settings import AwsKeys, CredentialsEndpoint, Iam
from sidecar.protocol import Call, Kind, Outcome, Timings
from sidecar.redis import iam
from sidecar.redis.connection import Connector
from sidecar.redis.failures import CredentialsError, Failure
from sidecar.redis.iam import IamLogin
from sidecar.redis.store import RedisStore
from sidecar.redis.watch import RedisWatch, WatchMode
from sidecar.settings import SettingsError, read
from sidecar.telemetry import Telemetry
from tests.sidecar.test_process import STEADY, Asker, logged
from tests.support.iam import CACHE, REGION, USER, IamCache, Role, role
from tests.support.processes import RealSidecar, killed_at_exit
from tests.support.storing import Storing, storing
from tests.support.tls import Authority
from tests.support.waiting import eventually

HOST = "127.0.0.1"
STATIC = {"AWS_ACCESS_KEY_ID": "AKIASTATIC", "AWS_SECRET_ACCESS_KEY": "static/secret"}


@pytest.fixture(name="role")
async def _role() -> AsyncIterator[Role]:
    async with role() as it:
        yield it


class Files:
    """The certificate of the cache, and the file of its CA."""

    def __init__(self, folder: Path) -> None:
        authority = Authority("elasticache")
        self.ca = authority.write(folder / "ca.crt")
        self.tls = create_default_context(Purpose.CLIENT_AUTH)
        self.tls.load_cert_chain(*authority.issue(HOST, folder / "cache"))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
async def cache(redis_of_its_own: RedisServer, files: Files, role: Role) -> AsyncIterator[IamCache]:
    async with IamCache(redis_of_its_own.port, files.tls, role) as cache:
        yield cache


def connector(cache: IamCache, files: Files, **environment: str) -> Connector:
    return Connector(read(cache.environment | {"REDIS_TLS_CA_FILE": str(files.ca), **environment}).redis)


@asynccontextmanager
async def kept_fresh(connect: Connector) -> AsyncIterator[None]:
    """Fetch the credentials in the background, like `sidecar.run`."""
    assert connect.login is not None
    await connect.login.prepare()
    task = asyncio.create_task(connect.login.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def look(store: Storing) -> Outcome | Failure:
    """The outcome of a look over a new connection, or its failure."""
    await store.store.close()
    result = await store.call(Kind.LOOK, limit=10.0)
    return result if isinstance(result, Failure) else result.outcome


async def test_each_connection_logs_in_with_a_new_token_and_the_credentials_are_fetched_once(
    cache: IamCache, files: Files, role: Role
) -> None:
    connect = connector(cache, files, **role.environment)
    async with kept_fresh(connect), storing(connect) as store:
        for _ in range(3):
            assert await look(store) is Outcome.VACANT
    assert (cache.logins, cache.refused, role.asked) == (["ASIAROLE0"] * 3, 0, 1)


@pytest.mark.parametrize("session_token", ["", "session//token=="])
async def test_access_keys_in_the_environment_need_no_credentials_endpoint(
    cache: IamCache, files: Files, role: Role, session_token: str
) -> None:
    keys = AwsKeys(STATIC["AWS_ACCESS_KEY_ID"], STATIC["AWS_SECRET_ACCESS_KEY"], session_token or None)
    role.issued[keys.key_id] = keys
    connect = connector(cache, files, **role.environment, **STATIC, AWS_SESSION_TOKEN=session_token)
    async with kept_fresh(connect), storing(connect) as store:
        assert await look(store) is Outcome.VACANT
    assert (cache.logins, role.asked) == (["AKIASTATIC"], 0)


async def test_a_login_that_the_cache_refuses_is_reported_with_possible_causes(
    cache: IamCache, files: Files, role: Role
) -> None:
    connect = connector(cache, files, AWS_ACCESS_KEY_ID="AKIAUNKNOWN", AWS_SECRET_ACCESS_KEY="nobody/knows")
    async with kept_fresh(connect), storing(connect) as store:
        failure = await look(store)
    assert isinstance(failure, Failure)
    assert failure.kind == "auth"
    assert "elasticache:Connect" in failure.text
    assert "nobody/knows" not in failure.text


async def test_the_authorization_token_of_the_endpoint_is_read_from_its_file_at_each_fetch(
    cache: IamCache, files: Files, role: Role, tmp_path: Path
) -> None:
    role.authorization = "first"
    connect = connector(cache, files, **role.environment, AWS_CONTAINER_AUTHORIZATION_TOKEN="first")
    assert connect.login is not None
    await connect.login.prepare()
    connect.login.current()
    file = tmp_path / "token"
    connect = connector(cache, files, **role.environment, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(file))
    assert connect.login is not None
    for token in ("second", "third"):
        put(file, token)
        role.authorization = token
        await connect.login.prepare()
        connect.login.current()
    role.authorization = "fourth"
    problems: list[str] = []
    connect.login.when_failed = problems.append
    await connect.login.prepare()
    assert problems == ["the credentials endpoint answers with status 403"]


def put(file: Path, text: str) -> None:
    file.write_text(text)


class Clock:
    """The time of day, which the test sets."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def login_of(role: Role, now: Callable[[], datetime]) -> IamLogin:
    source = CredentialsEndpoint(role.url)
    return IamLogin(Iam(CACHE, REGION, False, source), USER, Lookups(), uniform=random.uniform, now=now)


async def test_credentials_are_fetched_again_before_they_expire(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iam, "LOOK", 0.05)
    now = Clock()
    login = login_of(role, now)
    await login.prepare()
    running = asyncio.create_task(login.run())
    try:
        role.rotate()
        await asyncio.sleep(0)
        assert (role.asked, "ASIAROLE0" in login.current()[1]) == (1, True)
        now.ahead = role.valid_for - iam.AHEAD + timedelta(seconds=5)
        role.valid_for *= 2
        await eventually(lambda: "ASIAROLE1" in login.current()[1])  # `current` raised no error meanwhile
        assert role.asked == 2
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_failed_fetch_closes_no_connection_while_the_previous_credentials_are_valid(
    cache: IamCache, files: Files, role: Role, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(iam, "LOOK", 0.1)
    caplog.set_level(logging.INFO)
    role.valid_for = iam.AHEAD - timedelta(minutes=1)
    connect = connector(cache, files, **role.environment)
    assert connect.login is not None
    problems: list[str] = []
    connect.login.when_failed = problems.append
    async with kept_fresh(connect), storing(connect) as store:
        role.answers = web.Response(status=500)
        await eventually(lambda: len(problems) > 2)
        assert set(problems) == {"the credentials endpoint answers with status 500"}
        assert await look(store) is Outcome.VACANT
        warned = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
        assert len(warned) == 1
        assert "answers with status 500; the previous credentials are valid for 8" in warned[0]
        role.answers = None
        before = role.asked
        await eventually(lambda: role.asked > before + 1)
        assert connect.login.current()[0] == USER
    assert any("have been fetched again" in each.getMessage() for each in caplog.records)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"not found", 404, "the credentials endpoint answers with status 404"),
        (b"<html>", 200, "the credentials endpoint does not answer with credentials"),
        (b"[]", 200, "the credentials endpoint does not answer with credentials"),
        (b"[" * 100_000, 200, "the credentials endpoint does not answer with credentials"),
        (b'{"AccessKeyId": "SECRET-ID"}', 200, "the credentials endpoint does not answer with credentials"),
        (
            b'{"AccessKeyId": 7, "SecretAccessKey": "SECRET", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"}',
            200,
            "the credentials endpoint does not answer with credentials",
        ),
        (b"x" * 2_000_000, 200, "the credentials endpoint does not answer with credentials"),
    ],
)
async def test_an_invalid_answer_of_the_credentials_endpoint_is_a_login_failure(
    cache: IamCache, files: Files, role: Role, body: bytes, status: int, error: str
) -> None:
    role.answers = web.Response(status=status, body=body)
    connect = connector(cache, files, **role.environment)
    async with kept_fresh(connect), storing(connect) as store:
        failure = await look(store)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.text) == ("credentials", f"REDIS_IAM: no credentials of the task's role: {error}")


async def test_a_hanging_fetch_does_not_delay_calls(
    cache: IamCache, files: Files, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iam, "FETCH_LIMIT", 0.2)
    role.hangs = True
    connect = connector(cache, files, **role.environment)
    assert connect.login is not None
    await connect.login.prepare()
    monkeypatch.setattr(iam, "FETCH_LIMIT", 30.0)
    running = asyncio.create_task(connect.login.run())
    try:
        await eventually(lambda: role.asked == 2)  # the second fetch hangs from now on
        async with storing(connect) as store:
            failure = await look(store)
            assert isinstance(failure, Failure)
            assert failure.kind == "credentials"
            assert failure.text.endswith("the credentials endpoint does not answer within 0.2 s")
        assert role.asked == 2
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_expired_credentials_are_not_used(role: Role) -> None:
    now = Clock()
    login = login_of(role, now)
    await login.prepare()
    login.current()
    now.ahead = role.valid_for + timedelta(seconds=1)
    with pytest.raises(CredentialsError, match=r"have expired, and new ones have not been fetched yet$"):
        login.current()  # as after a suspension of the machine
    role.answers = web.Response(status=500)
    await login.prepare()
    with pytest.raises(
        CredentialsError, match=r"the previous credentials have expired, and the credentials endpoint .* status 500$"
    ):
        login.current()


TIMINGS = Timings(ttl=30.0, heartbeat=0.5, grant_ttl=5.0, call_limit=5.0)


class Counting(Telemetry):
    """Telemetry that keeps the failures and counts the answers."""

    def __init__(self) -> None:
        super().__init__("a", clock=elapsed)
        self.failures: list[Failure] = []
        self.late: list[Failure] = []
        self.answers = 0

    def answered(self, lease: str, call: Call, outcome: Outcome, now: float) -> None:
        self.answers += 1

    def failed(self, lease: str | None, failure: Failure) -> None:
        self.failures.append(failure)

    def not_replaced(self, failure: Failure) -> None:
        self.late.append(failure)


class Elected:
    """A candidate with a watch and an IAM login."""

    def __init__(self, connect: Connector) -> None:
        self.telemetry = Counting()
        self.lease = Lease("a", TIMINGS, boot="b", now=elapsed(), uniform=random.uniform, require_client=False)
        keys = {"tracker": "portfolio:tracker:leader"}
        self.store = RedisStore(connect, "a", TIMINGS, clock=elapsed, failover_guard=False, min_replicas=0)
        self.candidate = Candidate(
            {"tracker": self.lease}, keys, self.store, TIMINGS, self.telemetry, clock=elapsed, uniform=random.uniform
        )
        self.watch = RedisWatch(
            connect.companion, keys, self.candidate.noticed, self.candidate.step_down_noticed,
            limit=5.0, interval=0.5, uniform=random.uniform,
        )  # fmt: skip

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(each) for each in (self.candidate.run(), self.watch.run())]
        try:
            await eventually(lambda: self.lease.leads(elapsed()) and self.watch.mode is WatchMode.TRACKING)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    @property
    def token(self) -> int | None:
        return self.lease.view(elapsed()).token


async def test_connections_are_replaced_before_the_cache_closes_them(
    redis_of_its_own: RedisServer, files: Files, role: Role
) -> None:
    """Three seconds stand for the cache's limit of twelve hours.

    No connection gets that old, no term ends, no call fails.
    """
    async with IamCache(redis_of_its_own.port, files.tls, role, cut_after=3.0) as cache:
        connect = connector(cache, files, **role.environment)
        login = connect.login
        assert isinstance(login, IamLogin)
        login._lifetime = 1.0
        await login.prepare()
        elected = Elected(connect)
        async with elected.running():
            token = elected.token
            before = len(cache.logins)
            # About 4 logins for the calls, and 4 for the watch.
            await eventually(lambda: len(cache.logins) >= before + 8, within=60)
            assert elected.token == token
            assert elected.lease.leads(elapsed())
        assert (cache.cut, elected.telemetry.failures, elected.telemetry.late) == (0, [], [])


async def test_an_old_connection_stays_open_until_its_replacement_is_connected(
    redis_of_its_own: RedisServer, files: Files, role: Role
) -> None:
    async with IamCache(redis_of_its_own.port, files.tls, role) as cache:
        connect = connector(cache, files, **role.environment)
        login = connect.login
        assert isinstance(login, IamLogin)
        login._lifetime = 1.0
        await login.prepare()
        elected = Elected(connect)
        async with elected.running():
            token, issued = elected.token, dict(role.issued)
            role.issued.clear()  # from now on no login succeeds
            await eventually(lambda: elected.telemetry.late, within=60)
            assert elected.telemetry.late[0].kind == "auth"
            answers = elected.telemetry.answers
            await eventually(lambda: elected.telemetry.answers >= answers + 3)  # renewals, over the old connection
            role.issued.update(issued)
            replaced = len(cache.logins)
            await eventually(lambda: len(cache.logins) > replaced, within=60)
            assert (elected.token, elected.telemetry.failures) == (token, [])


async def test_a_sidecar_leads_with_the_credentials_of_its_role_and_shows_no_secret(
    redis_of_its_own: RedisServer, cache: IamCache, files: Files, role: Role, tmp_path: Path
) -> None:
    seldom = {"HEARTBEAT_INTERVAL": "10"}  # a renewal fails if the connection ends before the reply
    sidecar = RealSidecar(tmp_path, redis_of_its_own, "task-a", **STEADY | seldom)
    del sidecar.environment["REDIS_URL"]
    sidecar.environment |= cache.environment | role.environment | {"REDIS_TLS_CA_FILE": str(files.ca)}
    async with aiohttp.ClientSession() as session:
        with killed_at_exit(sidecar):
            sidecar.start()
            asker = Asker(sidecar, session)
            await eventually(asker.status)

            async def leads() -> bool:
                return bool((await asker.ask())["is_leader"])

            await eventually(leads)
            status = await asker.status()
            await cache.cut_all()
            await eventually(lambda: len(cache.logins) >= 4)
            assert await leads()
            role.answers = web.Response(status=500)
    assert [line for line in logged(sidecar, "Redis failed") if line["level"] == "ERROR"] == []
    shown = sidecar.output + str(status)
    for secret in (role.keys.key_id, role.keys.secret, str(role.keys.session_token), "X-Amz", "6a1c"):
        assert secret not in shown


async def test_a_sidecar_without_credentials_reports_and_counts_the_failure(
    redis_of_its_own: RedisServer, cache: IamCache, files: Files, role: Role, tmp_path: Path
) -> None:
    role.answers = web.Response(status=500)
    sidecar = RealSidecar(tmp_path, redis_of_its_own, "task-a", **STEADY)
    del sidecar.environment["REDIS_URL"]
    sidecar.environment |= cache.environment | role.environment | {"REDIS_TLS_CA_FILE": str(files.ca)}
    async with aiohttp.ClientSession() as session:
        with killed_at_exit(sidecar):
            sidecar.start()
            asker = Asker(sidecar, session)
            await eventually(asker.status)
            await eventually(lambda: asker.metric('sidecar_redis_errors_total{kind="credentials"}'))
            await eventually(lambda: logged(sidecar, "Redis failed: REDIS_IAM: no credentials of the task's role"))
            assert await asker.is_healthy()
            role.answers = None

            async def leads() -> bool:
                return bool((await asker.ask())["is_leader"])

            await eventually(leads)
    [line] = logged(sidecar, "Redis failed")
    assert line["kind"] == "credentials"


NEEDED = {"REDIS_TLS": "true", "REDIS_USERNAME": USER, "REDIS_IAM": CACHE, "AWS_REGION": REGION, **STATIC}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            {"REDIS_TLS": ""},
            "REDIS_IAM: needs REDIS_TLS=true, or rediss:// in REDIS_URL: ElastiCache requires TLS for IAM logins",
        ),
        ({"REDIS_USERNAME": ""}, "REDIS_USERNAME: missing, though REDIS_IAM is set"),
        ({"AWS_REGION": ""}, "AWS_REGION: missing, though REDIS_IAM is set"),
        ({"AWS_REGION": "Frankfurt!"}, "AWS_REGION: not the name of a region, such as eu-central-1"),
        ({"REDIS_PASSWORD": "hunter2"}, "REDIS_IAM: cannot be set together with REDIS_PASSWORD"),
        ({"REDIS_PASSWORD_FILE": "/p"}, "REDIS_IAM: cannot be set together with REDIS_PASSWORD_FILE"),
        (
            {"REDIS_TLS": "", "REDIS_USERNAME": "", "REDIS_URL": "rediss://u:hunter2@h"},
            "REDIS_IAM: cannot be set together with a password in REDIS_URL",
        ),
        ({"REDIS_IAM": "true"}, "REDIS_IAM: not a switch; set the name of the cache"),
        (
            {"REDIS_IAM": "portfolio.abc.cache.amazonaws.com"},
            "REDIS_IAM: not an address; set the name of the replication group or of the serverless cache",
        ),
        (
            {"REDIS_IAM": "Portfolio"},
            "REDIS_IAM: has capital letters; ElastiCache stores the names of caches in lower case",
        ),
        (
            {"REDIS_IAM": "1st"},
            "REDIS_IAM: not the name of a cache: letters, digits and hyphens, at most 50, a letter first",
        ),
        ({"REDIS_IAM": "", "REDIS_IAM_SERVERLESS": "true"}, "REDIS_IAM_SERVERLESS: needs REDIS_IAM, which is not set"),
        ({"REDIS_IAM_SERVERLESS": "perhaps"}, "REDIS_IAM_SERVERLESS: 'perhaps' is not true or false"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "AWS_SECRET_ACCESS_KEY: missing, though AWS_ACCESS_KEY_ID is set"),
        ({"AWS_ACCESS_KEY_ID": ""}, "AWS_ACCESS_KEY_ID: missing, though AWS_SECRET_ACCESS_KEY is set"),
        (
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            "REDIS_IAM: no credentials of AWS: a task role on ECS sets AWS_CONTAINER_CREDENTIALS_RELATIVE_URI;"
            " elsewhere set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        *(
            (
                {
                    "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI": url,
                },
                "AWS_CONTAINER_CREDENTIALS_FULL_URI: neither https:// nor an address of this machine or of ECS",
            )
            for url in ("http://credentials.example/", "http://[::1", "https:///keys", "ftp://localhost/keys")
        ),
        (
            {
                "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "@evil.example/",
            },
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: not a path; ECS sets this variable, so do not set it yourself",
        ),
    ],
)  # fmt: skip
def test_an_invalid_iam_setting_is_a_one_line_error(change: dict[str, str], error: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(NEEDED | change)
    lines = str(refused.value).splitlines()
    assert error in lines
    assert len(lines) <= 2
    assert "hunter2" not in str(refused.value)


def test_a_relative_credentials_uri_is_resolved_against_the_address_of_ecs() -> None:
    without = {name: value for name, value in NEEDED.items() if name not in STATIC}
    iam_settings = read(without | {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/6a1c"}).redis.iam
    assert iam_settings is not None
    assert iam_settings.source == CredentialsEndpoint("http://169.254.170.2/v2/credentials/6a1c")
    assert "6a1c" not in repr(iam_settings)
    assert "static/secret" not in repr(read(NEEDED).redis)


@pytest.mark.parametrize("url", ["https://credentials.example/keys", "http://localhost/keys", "http://[::1]:80/keys"])
def test_credentials_are_fetched_over_https_or_from_this_machine(url: str) -> None:
    without = {name: value for name, value in NEEDED.items() if name not in STATIC}
    iam_settings = read(without | {"AWS_CONTAINER_CREDENTIALS_FULL_URI": url}).redis.iam
    assert iam_settings is not None
    assert iam_settings.source == CredentialsEndpoint(url)
