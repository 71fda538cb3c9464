"""The printed commands reach the run's Redis from any terminal, and contain no password."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import certifi
import jwt
import pytest

from ops.local import guide
from service.commands.samples import SAMPLES
from sidecar.redis.connection import Connector
from sidecar.settings import read
from tests.support.tls import Authority

ROOT = Path(__file__).parents[2]


def line(**variables: str) -> str | None:
    """Return the arguments of the printed redis-cli command; None if no command is printed."""
    address = read(variables).redis
    found = guide.redis_cli(Connector(address)(), address)
    return None if found is None else shlex.join(shlex.split(found)[1:])


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "7000"}, "-h 127.0.0.1 -p 7000"),
        ({"REDIS_URL": "redis://there/3"}, "-h there -p 6379 -n 3"),
        ({"REDIS_URL": "redis://:hidden@there:7000"}, "-h there -p 7000 --askpass"),
        ({"REDIS_URL": "redis://me:hidden@there:7000"}, "-h there -p 7000 --user me --askpass"),
        (
            {"REDIS_URL": "redis://there:7000", "REDIS_USERNAME": "me", "REDIS_PASSWORD": "hidden"},
            "-h there -p 7000 --user me --askpass",
        ),
        ({"REDIS_URL": "unix:///run/a redis.sock"}, "-s '/run/a redis.sock'"),
    ],
)
def test_the_redis_cli_line_has_address_and_user_and_asks_for_the_password(
    variables: dict[str, str], words: str
) -> None:
    assert line(**variables) == words


def test_a_server_with_tls_gets_the_redis_cli_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert line(REDIS_URL="rediss://there:7000") is None
    installed = tmp_path / "redis-cli"
    installed.touch(0o755)
    assert line(REDIS_URL="rediss://there:7000") == "-h there -p 7000 --tls"
    assert line(REDIS_URL="rediss://there:7000?ssl_cert_reqs=none") == "-h there -p 7000 --tls --insecure"
    ca = certifi.where()
    assert line(REDIS_URL=f"rediss://there:7000?ssl_ca_certs={ca}") == f"-h there -p 7000 --tls --cacert {ca}"
    certificate, key = Authority("ours").issue("client", tmp_path / "client")
    shown = {"REDIS_TLS_CERT_FILE": str(certificate), "REDIS_TLS_KEY_FILE": str(key)}
    assert line(REDIS_URL="rediss://there:7000", **shown) == f"-h there -p 7000 --tls --cert {certificate} --key {key}"


TASK = guide.TaskView("task1", "127.0.0.1:8080", "127.0.0.1:9101", "127.0.0.1:4040", "127.0.0.1:9102", {"api": 7})
PORTFOLIO = next(iter(SAMPLES))
OWNER = SAMPLES[PORTFOLIO][1]
URL, SECRET = "https://project.supabase.co", "a shared secret of at least 32 bytes"


def look(**api: str) -> list[str]:
    """Return the printed commands that show the state of the run, without their explanations."""
    return [text.strip() for text in guide.look([TASK], str(PORTFOLIO), api, ROOT) if not text.startswith("  #")]


def test_with_authentication_the_requests_of_users_have_the_token_that_the_first_command_makes() -> None:
    assert "TOKEN" not in "".join(look(AUTH="off"))
    login, *requests = look(AUTH="supabase", SUPABASE_URL=URL, SUPABASE_JWT_SECRET=SECRET)
    of_users = [request for request in requests if "/portfolios/" in request]
    assert len(of_users) == 3
    assert all('-H "Authorization: Bearer $TOKEN"' in request for request in of_users)
    assert not any("TOKEN" in request for request in requests if request not in of_users)
    assert SECRET not in login
    script = f'{login}; printf %s "$TOKEN"'
    token = subprocess.check_output(["/bin/sh", "-c", script], cwd="/", env={"SUPABASE_JWT_SECRET": SECRET}, text=True)
    claims = jwt.decode(token, SECRET, ["HS256"], audience="authenticated", issuer=f"{URL}/auth/v1")
    assert claims["sub"] == str(OWNER)


def test_without_a_shared_secret_the_token_is_left_to_the_user() -> None:
    shown = "\n".join(guide.look([TASK], str(PORTFOLIO), {"AUTH": "supabase", "SUPABASE_URL": URL}, ROOT))
    assert f"need an access token of the user {OWNER}" in shown
    assert "\n  TOKEN=ACCESS_TOKEN\n" in shown


def test_the_operators_page_comes_first_among_the_addresses_of_a_task() -> None:
    assert guide.page([TASK])[0].split()[0] == "http://127.0.0.1:9101/"
    assert re.findall(r"http://\S+", guide.addresses([TASK])[0])[0] == "http://127.0.0.1:9101/"


def test_a_manual_job_has_the_api_s_settings_but_no_address_with_a_password() -> None:
    api = {"MARKET_CALENDAR": "24/7", "PRICE_SOURCE": "simulated", "DATABASE_URL": "postgres://a:b@c/d e", "X": "y"}
    comment, line = guide.by_hand(api, Path("/a checkout"), ours=True)
    assert comment.lstrip().startswith("# ")
    words = shlex.split(line.strip().removeprefix("(cd '/a checkout' && ").removesuffix(")"))
    assert words[:3] == ["MARKET_CALENDAR=24/7", "PRICE_SOURCE=simulated", "DATABASE_URL=postgres://a:b@c/d e"]
    assert words[3:] == [sys.executable, "-m", "service", "run", "snapshot", "--dry-run"]
    assert "DATABASE_URL" not in "".join(guide.by_hand(api, Path("/"), ours=False))


def test_without_a_redis_cli_there_is_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert line(REDIS_HOST="127.0.0.1") is None


def test_a_shell_gets_only_the_addresses_of_the_run_s_own_servers() -> None:
    api = {"PRICE_SOURCE": "simulated", "SIDECAR_URL": "http://127.0.0.1:4041", "DATABASE_URL": "postgres://a:b@c/d e"}
    sidecar = {"CONTROL_BIND": "127.0.0.1:4041", "REDIS_PASSWORD": "hidden"}
    ours = guide.shell_environment(api, sidecar, {"REDIS_URL": "redis://127.0.0.1:7000"}, ours=True)
    assert [shlex.split(text) for text in ours.splitlines()] == [
        ["export", "PRICE_SOURCE=simulated"],
        ["export", "SIDECAR_URL=http://127.0.0.1:4041"],
        ["export", "DATABASE_URL=postgres://a:b@c/d e"],
        ["export", "CONTROL_BIND=127.0.0.1:4041"],
        ["export", "REDIS_URL=redis://127.0.0.1:7000"],
    ]
    theirs = guide.shell_environment(api, sidecar, {}, ours=False)
    assert "postgres://" not in theirs
    assert "REDIS" not in theirs
