"""Authentication: access tokens, published keys and shared secrets, and attacks on them."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from service.__main__ import main
from service.api import jwks
from service.api.auth import OpenGuard, TokenGuard, Unauthorized
from service.api.jwks import JWKS_PATH, MAX_ANSWER, MIN_INTERVAL, KeySet, KeysUnavailable
from tests.support.waiting import eventually

USER = UUID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa")
SECRET = "a shared secret of more than thirty-two bytes"

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

weak = pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
"""Mark for a test that signs with a key that is too short."""


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def published(kid: str, key: Key, **more: Any) -> dict[str, Any]:
    """A key in the form in which Supabase publishes keys."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        entry = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
        alg = "RS256"
    else:
        entry = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
        alg = "ES256"
    return {**entry, "kid": kid, "alg": alg, "use": "sig", "key_ops": ["verify"], "ext": True, **more}


@dataclass
class Project:
    """The part of a Supabase project that publishes keys, and the guard's clock `now`, which the test sets."""

    keys: list[Any] = field(default_factory=list)
    instead: web.Response | None = None
    hangs: bool = False
    asked: int = 0
    url: str = ""
    now: float = 0.0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Project"]:
        async def answer(_: web.Request) -> web.Response:
            self.asked += 1
            if self.hangs:
                await asyncio.Event().wait()
            return self.instead or web.json_response({"keys": self.keys})

        app = web.Application()
        app.router.add_get(JWKS_PATH, answer)
        self.runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await self.runner.cleanup()

    def claims(self, **changed: Any) -> dict[str, Any]:
        """The claims of a session's token. A claim that is changed to None is omitted."""
        now = int(time.time())
        usual = {
            "iss": f"{self.url}/auth/v1",
            "aud": "authenticated",
            "role": "authenticated",
            "sub": str(USER),
            "iat": now,
            "exp": now + 3600,
            "email": "someone@example.com",
            "session_id": "s",
            "is_anonymous": False,
        }
        return {name: value for name, value in {**usual, **changed}.items() if value is not None}

    def token(self, key: Key | str, kid: str | None = None, alg: str | None = None, **changed: Any) -> str:
        if alg is None:
            alg = "HS256" if isinstance(key, str) else "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(self.claims(**changed), key, alg, headers={} if kid is None else {"kid": kid})


@pytest.fixture
async def project() -> AsyncIterator[Project]:
    async with Project(keys=[published("one", ec_key("one")), published("two", rsa_key())]).serving() as project:
        yield project


@pytest.fixture
async def guard(project: Project) -> AsyncIterator[TokenGuard]:
    """A guard with published keys and a shared secret."""
    keys = KeySet(project.url, clock=lambda: project.now)
    guard = TokenGuard(project.url, keys, SecretStr(SECRET), lambda: project.now)
    yield guard
    await guard.aclose()


async def user_of(guard: TokenGuard, token: str) -> UUID | None:
    return (await guard.caller(f"Bearer {token}")).user_id


async def refused(guard: TokenGuard, token: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        await guard.caller(f"Bearer {token}")
    return str(caught.value)


async def test_a_token_signed_with_a_published_key_or_the_shared_secret_authenticates_its_user(
    project: Project, guard: TokenGuard
) -> None:
    for token in (
        project.token(ec_key("one"), "one"),
        project.token(rsa_key(), "two"),
        project.token(SECRET),
        project.token(SECRET, "a kid of the legacy secret"),
        project.token(SECRET, aud=["other", "authenticated"]),
    ):
        caller = await guard.caller(f"bearer {token}")
        assert caller.user_id == USER
        assert caller.expires_at == pytest.approx(time.time() + 3610, abs=60)
        assert caller.may_see(USER)
        assert not caller.may_see(UUID(int=1))
    assert project.asked == 1


FAR_AHEAD = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())

WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://other.supabase.co/auth/v1"},
    "the issuer of anon keys": {"iss": "supabase"},
    "no issuer": {"iss": None},
    "no expiry": {"exp": None},
    "an invalid expiry": {"exp": "tomorrow"},
    "no user": {"sub": None},
    "a user that is not a UUID": {"sub": "1"},
    "not yet": {"nbf": FAR_AHEAD},
    "issued in the future": {"iat": FAR_AHEAD},
}


@pytest.mark.parametrize("name", WRONG_CLAIMS)
async def test_every_claim_is_checked(name: str, project: Project, guard: TokenGuard) -> None:
    for token in (
        project.token(SECRET, **WRONG_CLAIMS[name]),
        project.token(ec_key("one"), "one", **WRONG_CLAIMS[name]),
    ):
        assert await refused(guard, token) == "the access token is not valid"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"role": "service_role", "iss": "supabase", "aud": None, "sub": None}, "the project's service_role key"),
        ({"role": "anon", "iss": "supabase", "aud": None, "sub": None}, "the project's anon key"),
        ({"role": "service_role"}, "the project's service_role key"),
        ({"role": None}, "not of the role 'authenticated'"),
        ({"role": "Authenticated"}, "not of the role 'authenticated'"),
        ({"role": "supabase_admin"}, "not of the role 'authenticated'"),
        ({"role": ["authenticated"]}, "not of the role 'authenticated'"),
        ({"role": {}}, "not of the role 'authenticated'"),
        ({"is_anonymous": True}, "of an anonymous user"),
        ({"is_anonymous": "false"}, "of an anonymous user"),
        ({"aud": None}, "not for the audience 'authenticated'"),
        ({"aud": "anon"}, "not for the audience 'authenticated'"),
        ({"aud": "unauthenticated"}, "not for the audience 'authenticated'"),
        ({"aud": []}, "not for the audience 'authenticated'"),
        ({"aud": ["anon", "x"]}, "not for the audience 'authenticated'"),
        ({"aud": {"authenticated": 1}}, "not for the audience 'authenticated'"),
    ],
)
async def test_only_a_signed_in_user_is_admitted_and_others_are_given_the_reason(
    claims: dict[str, Any], expected: str, project: Project, guard: TokenGuard
) -> None:
    for token in (project.token(SECRET, **claims), project.token(ec_key("one"), "one", **claims)):
        assert expected in await refused(guard, token)


async def test_a_token_without_the_claim_of_anonymous_users_is_accepted(project: Project, guard: TokenGuard) -> None:
    assert await user_of(guard, project.token(SECRET, is_anonymous=None)) == USER


async def test_a_possibly_wrong_setting_is_one_warning_an_hour_however_many_tokens_come(
    project: Project, guard: TokenGuard, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        return [record.message for record in caplog.records if record.name == "service.api.auth"]

    foreign = [project.token(ec_key("one"), "one", iss=f"https://{n}.example/auth/v1") for n in range(5)]
    for token in foreign * 3:
        await refused(guard, token)
    assert warnings() == [
        "SUPABASE_URL: a signed access token names the issuer 'https://0.example/auth/v1', "
        f"not {project.url}/auth/v1; refused"
    ]
    project.now += 3599
    await refused(guard, foreign[1])
    assert len(warnings()) == 1
    project.now += 1
    for token in foreign:
        await refused(guard, token)
    assert len(warnings()) == 2


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (lambda project: project.token(ec_key("one"), "gone"), "SUPABASE_URL: an access token names a key that"),
        (lambda project: project.token("x" * 40), "SUPABASE_JWT_SECRET: an access token was not signed with it"),
    ],
)
async def test_tokens_with_a_key_that_the_settings_do_not_give_are_one_warning(
    token: Callable[[Project], str],
    expected: str,
    project: Project,
    guard: TokenGuard,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(3):
        await refused(guard, token(project))
    (message,) = [record.message for record in caplog.records if record.name == "service.api.auth"]
    assert message.startswith(expected)


async def test_a_missing_shared_secret_is_one_warning(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    guard = TokenGuard(project.url, KeySet(project.url))
    for _ in range(3):
        await refused(guard, project.token(SECRET))
    (message,) = [record.message for record in caplog.records if record.name == "service.api.auth"]
    assert message.startswith("SUPABASE_JWT_SECRET: missing, ")


async def test_the_warning_about_a_hostile_issuer_is_one_short_line(
    project: Project, guard: TokenGuard, caplog: pytest.LogCaptureFixture
) -> None:
    await refused(guard, project.token(SECRET, iss="x\n\x1b[31m" * 900))
    (message,) = [record.message for record in caplog.records if record.name == "service.api.auth"]
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 400


async def test_an_expired_token_is_rejected_as_such_after_a_little_leeway(project: Project, guard: TokenGuard) -> None:
    assert await user_of(guard, project.token(SECRET, exp=int(time.time()) - 2)) == USER
    assert await refused(guard, project.token(SECRET, exp=int(time.time()) - 60)) == "the access token has expired"


def hand_made(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"x" * 64) -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@weak
async def test_a_token_cannot_choose_the_algorithm_for_its_key(project: Project, guard: TokenGuard) -> None:
    claims = project.claims()
    pem = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    for kid, key in (("one", ec_key("one")), ("two", rsa_key())):
        public = key.public_key().public_bytes(*pem)
        for secret in (public, json.dumps(published(kid, key)).encode()):  # attackers know the public key too
            signer = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
            unsigned = hand_made({"alg": "HS256", "typ": "JWT", "kid": kid}, claims, b"")[:-1]
            signature = base64.urlsafe_b64encode(signer.sign(unsigned.encode(), secret)).rstrip(b"=").decode()
            assert await refused(guard, f"{unsigned}.{signature}") == "the access token is not valid"
    for alg, kid in (("none", "one"), ("None", "one"), ("RS256", "one"), ("ES256", "two"), ("HS512", "one")):
        await refused(guard, hand_made({"alg": alg, "kid": kid}, claims))
    await refused(guard, hand_made({"alg": "none", "kid": "one"}, claims, b""))
    await refused(guard, project.token(SECRET, alg="HS512"))
    await refused(guard, project.token(rsa_key(), "two", alg="RS512"))
    await refused(guard, project.token(rsa_key(), "two", alg="PS256"))


async def test_a_wrong_signature_is_refused(project: Project, guard: TokenGuard) -> None:
    await refused(guard, project.token(ec_key("other"), "one"))
    await refused(guard, project.token("another secret of more than thirty-two bytes"))
    await refused(guard, project.token(ec_key("one")))  # without the id of a key
    good = project.token(ec_key("one"), "one")
    head, body, signature = good.split(".")
    await refused(guard, f"{head}.{body[:-2]}xx.{signature}")
    await refused(guard, f"{head}.{body}.{'A' * len(signature)}")


async def test_without_a_shared_secret_a_token_signed_with_one_is_refused(project: Project) -> None:
    guard = TokenGuard(project.url, KeySet(project.url))
    await refused(guard, project.token(SECRET))
    await guard.aclose()
    assert project.asked == 0


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b.c.d", "Bearer a.b", "Bearer a.b.c.d", "Bearer ä.b.c"]
)
async def test_a_header_without_a_token_is_refused(header: str, guard: TokenGuard) -> None:
    with pytest.raises(Unauthorized, match=r"^the Authorization header is not of the form 'Bearer TOKEN'$"):
        await guard.caller(header)


async def test_without_a_header_the_error_says_that_a_token_is_needed(guard: TokenGuard) -> None:
    with pytest.raises(Unauthorized, match=r"^an access token is needed$"):
        await guard.caller(None)


async def test_without_authentication_every_caller_may_see_every_user() -> None:
    caller = await OpenGuard().caller(None)
    assert (caller.user_id, caller.expires_at, caller.may_see(USER)) == (None, None, True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("a1.ä", max_size=9), st.lists, max_leaves=5
)


@given(
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64"]), JSON | st.sampled_from(["HS256", "ES256"])
    ),
    claims=st.dictionaries(
        st.sampled_from(["iss", "aud", "exp", "sub", "iat", "nbf", "role", "is_anonymous"]), JSON | st.just("anon")
    ),
    signature=st.binary(max_size=70),
    sign=st.booleans(),
)
def test_any_invalid_token_is_refused_without_another_error(
    header: dict[str, Any], claims: dict[str, Any], signature: bytes, sign: bool
) -> None:
    class NoKeys(KeySet):
        async def _fetch(self) -> dict[Any, Any]:
            return {}

    async def ask() -> None:
        guard = TokenGuard("http://127.0.0.1", NoKeys("http://127.0.0.1"), SecretStr(SECRET))
        token = hand_made(header, claims, signature)
        if sign:  # even if it is signed with the secret
            head, body, _ = hand_made({"alg": "HS256"}, claims).split(".")
            signer = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
            made = signer.sign(f"{head}.{body}".encode(), SECRET.encode())
            token = f"{head}.{body}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"
        await refused(guard, token)
        await guard.aclose()

    asyncio.run(ask())


@pytest.mark.parametrize("inside", ["[" * 3000, '{"alg":' * 1000, "\x00", "7", "null"])
async def test_a_token_whose_header_is_not_an_object_is_refused(inside: str, guard: TokenGuard) -> None:
    part = base64.urlsafe_b64encode(inside.encode()).rstrip(b"=").decode()
    assert await refused(guard, f"{part}.{part}.{part}") == "the access token is not valid"


async def test_a_new_key_is_fetched_when_a_token_names_it_and_replaces_the_old_key(
    project: Project, guard: TokenGuard
) -> None:
    assert await user_of(guard, project.token(ec_key("one"), "one")) == USER
    project.keys = [published("three", ec_key("three"))]
    project.now += MIN_INTERVAL
    assert await user_of(guard, project.token(ec_key("three"), "three")) == USER
    assert project.asked == 2
    await refused(guard, project.token(ec_key("one"), "one"))


async def test_a_withdrawn_key_is_forgotten_even_if_no_token_names_a_new_key(
    project: Project, guard: TokenGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "REFRESH_INTERVAL", 0.01)
    token = project.token(ec_key("one"), "one")
    assert await user_of(guard, token) == USER
    project.keys = [published("four", ec_key("four"))]
    asked = project.asked
    await eventually(lambda: project.asked >= asked + 2)  # so the first answer with the new keys has been read
    await refused(guard, token)


async def test_a_key_server_that_hangs_delays_no_token_with_a_known_key(
    project: Project, guard: TokenGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "REFRESH_INTERVAL", 0.01)
    known = project.token(ec_key("one"), "one")
    assert await user_of(guard, known) == USER
    project.hangs = True
    asked = project.asked
    await eventually(lambda: project.asked > asked)
    look = guard._keys._fetching
    for _ in range(20):
        assert await user_of(guard, known) == USER
    assert look is not None
    assert not look.done(), "the hanging fetch continues"
    project.hangs = False


async def test_a_token_with_an_unknown_key_waits_a_limited_time_for_a_hanging_key_server(
    project: Project, guard: TokenGuard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jwks, "FETCH_LIMIT", 1.0)  # long enough for a request on a busy machine
    project.hangs = True
    tokens = [project.token(ec_key("other"), f"made up {number}") for number in range(50)]
    errors = await asyncio.gather(*(guard.caller(f"Bearer {token}") for token in tokens), return_exceptions=True)
    assert {type(error) for error in errors} == {KeysUnavailable}
    assert (project.asked, len(caplog.records)) == (1, 1)


async def test_a_failed_fetch_is_repeated_even_if_no_token_comes(
    project: Project, guard: TokenGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "RETRY_INTERVAL", 0.01)
    project.instead = web.Response(status=500)
    token = project.token(ec_key("one"), "one")
    with pytest.raises(KeysUnavailable):
        await guard.caller(f"Bearer {token}")
    project.instead = None
    await eventually(lambda: guard._keys._keys)
    monkeypatch.setattr(guard._keys, "_fetch_or_join", lambda: pytest.fail("the key is known"))
    assert await user_of(guard, token) == USER


async def test_a_failed_fetch_is_repeated_sooner_than_a_successful_one(project: Project, guard: TokenGuard) -> None:
    token = project.token(ec_key("one"), "one")
    for now, asked in ((0.0, 1), (jwks.RETRY_INTERVAL - 1, 1), (jwks.RETRY_INTERVAL, 2)):
        project.now, project.instead = now, web.Response(status=500)
        with pytest.raises(KeysUnavailable):
            await guard.caller(f"Bearer {token}")
        assert project.asked == asked
    project.instead = None
    project.now += jwks.RETRY_INTERVAL
    assert await user_of(guard, token) == USER
    project.now += jwks.RETRY_INTERVAL
    await refused(guard, project.token(ec_key("other"), "made up"))
    assert project.asked == 3, "after a success the longer interval applies"


async def test_a_fetch_that_hangs_ends_with_the_service(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "REFRESH_INTERVAL", 0.01)
    keys = KeySet(project.url)
    await keys.key("one", "ES256")
    project.hangs = True
    asked = project.asked
    await eventually(lambda: project.asked > asked)
    look = keys._fetching
    assert look is not None
    await keys.aclose()
    assert look.cancelled()
    assert keys._next_fetch is not None
    assert keys._next_fetch.cancelled()


async def test_tokens_with_made_up_keys_do_not_cause_many_fetches(project: Project, guard: TokenGuard) -> None:
    for number in range(20):
        await refused(guard, project.token(ec_key("other"), f"made up {number}"))
    assert project.asked == 1
    project.now += MIN_INTERVAL
    for number in range(20):
        await refused(guard, project.token(ec_key("other"), f"made up {number}"))
    assert project.asked == 2


@pytest.mark.parametrize("status", [200, 500])
async def test_a_flood_of_made_up_keys_is_one_fetch_per_interval_whatever_its_result(
    status: int, project: Project, guard: TokenGuard, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = [project.token(ec_key("other"), f"made up {number}") for number in range(100)]
    for looks in (1, 2):
        project.instead = None if status == 200 else web.Response(status=status)
        for _ in range(2):
            errors = await asyncio.gather(
                *(guard.caller(f"Bearer {token}") for token in tokens), return_exceptions=True
            )
            assert {type(error) for error in errors} == {Unauthorized if status == 200 else KeysUnavailable}
        assert project.asked == looks
        assert len(caplog.records) == 1, "the log is not flooded either"
        project.now += MIN_INTERVAL


async def test_many_tokens_at_once_share_one_fetch(project: Project, guard: TokenGuard) -> None:
    token = project.token(ec_key("one"), "one")
    assert await asyncio.gather(*(user_of(guard, token) for _ in range(50))) == [USER] * 50
    assert project.asked == 1


async def test_a_fetch_outlives_a_caller_that_is_cancelled(project: Project, guard: TokenGuard) -> None:
    token = project.token(ec_key("one"), "one")
    first, second = (asyncio.create_task(user_of(guard, token)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == USER


@pytest.mark.parametrize(
    "instead",
    [
        lambda: web.Response(status=500),
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        lambda: web.Response(text="<html>"),
        lambda: web.Response(text="[" * 100_000),
        lambda: web.Response(text='{"keys": 7}'),
        lambda: web.Response(text=" " * (MAX_ANSWER + 1)),
    ],
    ids=["500", "elsewhere", "html", "deep", "no keys", "huge"],
)
async def test_a_failed_fetch_leaves_the_old_keys_in_use(
    instead: Callable[[], web.Response], project: Project, guard: TokenGuard, caplog: pytest.LogCaptureFixture
) -> None:
    known, unknown = project.token(ec_key("one"), "one"), project.token(ec_key("three"), "three")
    assert await user_of(guard, known) == USER
    project.instead = instead()
    project.now += MIN_INTERVAL
    with pytest.raises(KeysUnavailable):  # the key may be new, so the token is not refused
        await guard.caller(f"Bearer {unknown}")
    assert await user_of(guard, known) == USER
    assert len(caplog.records) == 1
    project.instead = None
    project.keys.append(published("three", ec_key("three")))
    project.now += MIN_INTERVAL
    assert await user_of(guard, unknown) == USER


async def test_without_a_network_at_the_start_published_keys_are_unavailable_and_hs256_works(project: Project) -> None:
    guard = TokenGuard("http://127.0.0.1:1", KeySet("http://127.0.0.1:1"), SecretStr(SECRET))
    with pytest.raises(KeysUnavailable):
        await guard.caller(f"Bearer {project.token(ec_key('one'), 'one')}")
    token = jwt.encode(project.claims(iss="http://127.0.0.1:1/auth/v1"), SECRET, "HS256")
    assert await user_of(guard, token) == USER
    await guard.aclose()


@weak
async def test_a_published_key_that_is_not_for_our_tokens_is_ignored(project: Project, guard: TokenGuard) -> None:
    p384 = jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True)
    secret = base64.urlsafe_b64encode(SECRET.encode()).decode()
    other = ec_key("other")
    project.keys = [
        None,
        "key",
        {},
        {"kid": "x", "kty": "EC", "crv": "P-256", "x": "?", "y": 7},
        {"kid": "x", "kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kid": "x", "kty": "oct", "k": secret, "alg": "HS256"},
        {**p384, "kid": "x"},
        published("x", other, use="enc"),
        published("x", other, alg="ES384"),
        {**published("x", other), "kid": None},
        published("x", rsa_key(1024)),
        published("one", ec_key("one")),
    ]
    assert await user_of(guard, project.token(ec_key("one"), "one")) == USER
    await refused(guard, project.token(other, "x"))
    await refused(guard, project.token(rsa_key(1024), "x"))


def token_of(monkeypatch: pytest.MonkeyPatch, *arguments: str, **settings: str) -> int:
    for name in ("AUTH", "SUPABASE_URL", "SUPABASE_JWT_SECRET", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return main(["token", *arguments])


async def test_a_development_token_is_accepted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "http://127.0.0.1:54321"
    assert token_of(monkeypatch, "--user", str(USER), SUPABASE_URL=url + "/", SUPABASE_JWT_SECRET=SECRET) == 0
    guard = TokenGuard(url, KeySet(url), SecretStr(SECRET))
    assert await user_of(guard, capsys.readouterr().out.strip()) == USER
    await guard.aclose()


@pytest.mark.parametrize("missing", ["SUPABASE_URL", "SUPABASE_JWT_SECRET"])
def test_a_development_token_needs_its_settings(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"SUPABASE_URL": "http://127.0.0.1:54321", "SUPABASE_JWT_SECRET": SECRET}
    del settings[missing]
    assert token_of(monkeypatch, "--user", str(USER), **settings) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.split(";")[0], output.err.count("\n")) == ("", f"{missing}: missing", 1)
    assert SECRET not in output.err


@pytest.mark.parametrize("arguments", [[], ["--user", "me"], ["--user", str(USER), "--hours", "0"]])
def test_wrong_arguments_of_the_token_command_are_exit_status_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as caught:
        token_of(monkeypatch, *arguments)
    assert caught.value.code == 2
