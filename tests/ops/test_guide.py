"""The printed commands reach the run's Redis from any terminal, and contain no password."""

import re
import shlex
import sys
from pathlib import Path

import certifi
import pytest

from ops.local import guide
from sidecar.redis.connection import Connector
from sidecar.settings import read
from tests.support.tls import Authority


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


def test_the_operators_page_comes_first_among_the_addresses_of_a_task() -> None:
    task = guide.TaskView("task1", "127.0.0.1:8080", "127.0.0.1:9101", "127.0.0.1:4040", "127.0.0.1:9102", {"api": 7})
    assert guide.page([task])[0].split()[0] == "http://127.0.0.1:9101/"
    assert re.findall(r"http://\S+", guide.addresses([task])[0])[0] == "http://127.0.0.1:9101/"


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
