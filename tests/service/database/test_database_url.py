"""DATABASE_URL: addresses that cannot work are refused at the start, and remote hosts get sslmode=require."""

import pwd
from pathlib import Path
from typing import Any, NoReturn

import pytest

from service.__main__ import main
from service.database.database_url import checked_database_url
from tests.support.tls import Authority

REMOTE = "postgresql://app:topsecret@db.example/portfolio"
OTHER_DRIVERS = (
    *("pgbouncer=true", "connection_limit=1", "schema=public", "pool_timeout=0", "connect_timeout=10", "ssl=true"),
    *("channel_binding=require", "sslmode=require&supa=base-pooler.x", "prepared_statements=false", "hostaddr=1.2.3.4"),
    *("currentSchema=public", "keepalives=1", "gssencmode=disable", "uselibpqcompat=true", "pool_max_conns=5"),
    *("statement_cache_size=0", "default_transaction_read_only=on", "service=other", "sslkeylogfile=/tmp/keys"),
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without the usual libpq variables for login and TLS, and with an empty home folder."""
    for name in ("PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))


def refusal(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The error of `migrate` for this address: it is one line, and the exit status is 2."""
    monkeypatch.setenv("DATABASE_URL", url)
    assert main(["migrate"]) == 2
    message = capsys.readouterr()
    assert (message.out, message.err.count("\n")) == ("", 1)
    assert "topsecret" not in message.err
    return message.err.rstrip("\n")


@pytest.mark.parametrize("options", OTHER_DRIVERS)
def test_an_option_of_another_driver_is_named_and_refused(
    options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = options.rpartition("&")[2].partition("=")[0]
    message = refusal(f"{REMOTE}?{options}", monkeypatch, capsys)
    assert message == f"DATABASE_URL: has the option '{name}', which the service does not support; remove it"


@pytest.mark.parametrize("option", ["x&topsecret=1", "x&top%0asecret%0a=1", "x&" + "a" * 500 + "=1"])
def test_the_name_of_an_unknown_option_is_hidden_if_it_may_be_secret(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(f"postgresql://app@db.example/portfolio?password={option}", monkeypatch, capsys)
    assert message == "DATABASE_URL: has an option, which the service does not support; remove it"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("sslmode=verify_full", "sslmode: 'verify_full' is not one of disable, allow, prefer, require, verify-ca"),
        ("sslmode=no-verify", "sslmode: 'no-verify' is not one of"),
        ("sslmode=REQUIRE", "sslmode: 'REQUIRE' is not one of"),
        ("sslmode=%0a", r"sslmode: '\n' is not one of"),
        ("target_session_attrs=standby", "target_session_attrs: 'standby' is not one of any, primary, read-write"),
        ("sslnegotiation=none", "sslnegotiation: 'none' is not one of postgres, direct"),
        ("sslmode=prefer&sslnegotiation=direct", "sslnegotiation=direct needs sslmode=require or stricter, not prefer"),
        ("ssl_min_protocol_version=SSLv3", "ssl_min_protocol_version: 'SSLv3' is not one of TLSv1.2, TLSv1.3"),
        (
            "ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
            "ssl_min_protocol_version is later than ssl_max_protocol_version",
        ),
        ("sslmode=require&sslmode=disable", "gives an option twice; keep one"),
        ("host=/tmp", "gives the host twice, before the '?' and as an option; keep one"),
        ("port=5433", "gives the port twice, before the '?' and as an option; keep one"),
        ("user=other", "gives the user twice, before the '?' and as an option; keep one"),
        ("dbname=other", "gives the dbname twice, before the '?' and as an option; keep one"),
    ],
)
def test_an_option_that_cannot_work_is_refused(
    options: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(f"{REMOTE}?{options}", monkeypatch, capsys).startswith(f"DATABASE_URL: {message}")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app@db.example:0/portfolio",
        "postgresql://app@one:5432,two:99999/portfolio",
        "postgresql://app@/portfolio?host=db.example&port=65536",
        "postgresql://app@/portfolio?host=one,two,three&port=1,2",
        "postgresql://app@one,,two/portfolio",
        "postgresql://app@aws-0.pooler.Supabase.com:6543/postgres",
        "postgresql://app@other,aws-0.pooler.supabase.com:6543/postgres",
        "postgresql://app@/postgres?host=aws-0.pooler.supabase.com&port=6543",
    ],
)
def test_an_invalid_host_or_port_is_refused_in_every_position(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(url, monkeypatch, capsys).startswith("DATABASE_URL: ")


@pytest.mark.parametrize("password", ["[YOUR-PASSWORD]", "<password>", "topsecret]"])
def test_a_remaining_placeholder_is_reported_as_a_placeholder(
    password: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(
        f"postgresql://postgres.abc:{password}@aws-0.pooler.supabase.com:5432/postgres", monkeypatch, capsys
    )
    assert message.startswith("DATABASE_URL: has brackets before the '@': fill in a placeholder")


@pytest.mark.parametrize("url", ["postgresql://db.example/portfolio", "postgresql://:topsecret@db.example/portfolio"])
def test_the_start_is_refused_if_neither_address_nor_system_names_a_user(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(_: int) -> NoReturn:
        raise KeyError("getpwuid(): uid not found: 10001")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)  # as in a container whose user has only a number
    assert refusal(url, monkeypatch, capsys) == "DATABASE_URL: names no user, and neither does PGUSER"
    monkeypatch.setenv("PGUSER", "app")
    assert checked_database_url(url)


@pytest.mark.parametrize("option", ["sslrootcert", "sslcrl", "sslcert", "passfile"])
def test_the_error_names_a_missing_file(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(f"postgresql://app@db.example/portfolio?{option}=/nowhere/file.pem", monkeypatch, capsys)
    assert message == f"DATABASE_URL: {option}: '/nowhere/file.pem' cannot be read: No such file or directory"


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_a_check_of_the_certificate_needs_a_ca(
    mode: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(f"{REMOTE}?sslmode={mode}", monkeypatch, capsys)
    assert message == f"DATABASE_URL: sslmode={mode} needs the CA's certificate: add sslrootcert=FILE"


def test_invalid_or_mismatched_certificate_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    authority, other = Authority("ours"), Authority("theirs")
    certificate, key = authority.issue("app", tmp_path / "app")
    _, other_key = other.issue("app", tmp_path / "other")
    ca = authority.write(tmp_path / "ca.crt")
    text = tmp_path / "text"
    text.write_text("no certificate")

    def refused(**options: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return refusal(f"{REMOTE}?{query}", monkeypatch, capsys)

    assert refused(sslrootcert=text).startswith(f"DATABASE_URL: sslrootcert: '{text}' cannot be used: ")
    assert refused(sslrootcert=tmp_path).endswith("cannot be read: Is a directory")
    assert refused(sslcert=certificate, sslkey=other_key).endswith("cannot be used: key values mismatch")
    assert refused(sslcert=certificate, sslkey=tmp_path / "none").startswith("DATABASE_URL: sslkey: ")
    assert checked_database_url(f"{REMOTE}?sslmode=verify-full&sslrootcert={ca}&sslcert={certificate}&sslkey={key}")


def test_a_wrong_password_of_a_key_is_refused_without_a_prompt(tmp_path: Path) -> None:
    authority = Authority("ours")
    certificate, key = authority.issue("app", tmp_path / "app", password="hidden")
    with pytest.raises(ValueError, match="cannot be used"):
        checked_database_url(f"{REMOTE}?sslcert={certificate}&sslkey={key}&sslpassword=wrong")
    assert checked_database_url(f"{REMOTE}?sslcert={certificate}&sslkey={key}&sslpassword=hidden")


def test_a_password_file_that_others_may_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "passwords"
    file.write_text("*:*:*:*:topsecret\n")
    file.chmod(0o644)
    url = f"postgresql://app@db.example/portfolio?passfile={file}"
    assert refusal(url, monkeypatch, capsys) == f"DATABASE_URL: passfile: '{file}' can be read by others; chmod 600"
    file.chmod(0o600)
    assert checked_database_url(url)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("postgresql://app@db.example/portfolio", "require"),
        ("postgresql://app@db.example/portfolio?", "require"),
        ("postgresql://app@db.example/portfolio?sslmode=", "require"),
        ("postgresql://app@db.example/portfolio?application_name=api", "require"),
        ("postgresql://app@10.0.0.1/portfolio", "require"),
        ("postgresql://app@[2001:db8::1]:5433/portfolio", "require"),
        ("postgresql://app@127.0.0.1,db.example/portfolio", "require"),
        ("postgresql://app@one:5432,two:5433/portfolio", "require"),
        ("postgresql://app@/portfolio?host=db.example", "require"),
        ("postgresql://app@%2Ftmp,db.example/portfolio", "require"),
        ("postgresql://app@0.0.0.0/portfolio", "require"),
        ("postgresql://app@localhost.example/portfolio", "require"),
        ("postgresql://app@db.example/portfolio?sslmode=disable", "disable"),
        ("postgresql://app@db.example/portfolio?sslmode=prefer", "prefer"),
        ("postgresql://app@127.0.0.1/portfolio", None),
        ("postgresql://app@127.8.9.1:5432/portfolio", None),
        ("postgresql://app@[::1]/portfolio", None),
        ("postgresql://app@[::ffff:127.0.0.1]/portfolio", None),
        ("postgresql://app@LocalHost/portfolio", None),
        ("postgresql://app@%2Fvar%2Frun/portfolio", None),
        ("postgresql://app@/portfolio?host=/tmp,127.0.0.1", None),
    ],
)
def test_a_remote_host_must_use_tls_unless_the_address_says_otherwise(url: str, asked: str | None) -> None:
    assert _mode(url) == asked


@pytest.mark.parametrize(
    ("variable", "asked"), [("verify-full", None), ("require", None), ("disable", "require"), ("nonsense", "require")]
)
def test_a_libpq_variable_may_require_more_encryption_but_not_less(
    variable: str, asked: str | None, tmp_path: Path
) -> None:
    environment = {"PGSSLMODE": variable, "PGSSLROOTCERT": str(Authority("ours").write(tmp_path / "ca.crt"))}
    assert _mode("postgresql://app@db.example/portfolio", environment) == asked


def _mode(url: str, environment: dict[str, str] | None = None) -> str | None:
    """The sslmode of the resulting address, after a check that nothing else changed."""
    more: dict[str, Any] = {} if environment is None else {"environment": environment}
    done = checked_database_url(url, **more)
    assert done.startswith(url)
    _, found, mode = done.rpartition("sslmode=")
    return mode if found else None
