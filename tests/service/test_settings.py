"""The settings: which values are refused, and with which errors."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ops.local.servers import free_port
from runtime.addresses import Address
from service.__main__ import main
from service.api.auth import issuer_of
from service.settings import SettingsError, read_settings

GOOD = "postgresql://app:topsecret@db.example/portfolio"
VARIABLES = (
    "DATABASE_URL SIDECAR_URL API_BIND INTERNAL_BIND CORS_ORIGINS MARKET_CALENDAR TRACKER_INTERVAL PRICE_SOURCE"
    " PRICE_SEED LOG_FORMAT LOG_LEVEL"
    " SHUTDOWN_TIMEOUT APCA_API_KEY_ID APCA_API_SECRET_KEY ALPACA_FEED ALPACA_DATA_URL AUTH SUPABASE_URL"
    " SUPABASE_JWT_SECRET"
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES.split():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", GOOD)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", None),
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "mysql://app:topsecret@db.example/portfolio"),
        ("DATABASE_URL", "postgresql:///portfolio"),
        ("DATABASE_URL", "postgresql://app:top#topsecret@db.example/portfolio"),
        ("DATABASE_URL", "postgresql://app:topsecret@[db.example/portfolio"),
        ("DATABASE_URL", "app:topsecret@db.example/portfolio"),
        ("DATABASE_URL", "postgresql://app:topsecret@db..example/portfolio"),
        ("DATABASE_URL", "postgresql://app:topsecret@one,db..example/portfolio"),
        ("DATABASE_URL", "postgresql://app:topsecret@d b/portfolio"),
        ("DATABASE_URL", "postgresql://app:topsecret@" + "d" * 64 + "/portfolio"),
        ("DATABASE_URL", "postgresql://app:topsecret@/portfolio?host=db..example"),
        ("DATABASE_URL", "postgresql://app:topsecret@/portfolio?host=db.example:topsecret"),
        ("DATABASE_URL", "postgresql://app:topsecret@db.example:topsecret/portfolio"),
        ("DATABASE_URL", "postgresql://app:topsecret@db.example:99999/portfolio"),
        ("DATABASE_URL", "postgresql://app:topsecret@db.example/portfolio?port=topsecret"),
        ("DATABASE_URL", "postgresql://app:topsecret@db.example/portfolio?topsecret"),
        ("DATABASE_URL", "postgresql://app:1#topsecret@db.example/portfolio"),
        ("DATABASE_URL", "postgresql://app:1?topsecret@db.example/portfolio"),
        ("DATABASE_URL", "postgresql://app:1/topsecret@db.example/portfolio"),
        ("DATABASE_URL", "postgresql://app:1@topsecret@db.example/portfolio"),
        ("DATABASE_URL", "postgresql://app:topsecret%00@db.example/portfolio"),
        ("DATABASE_URL", "postgresql://app:topsecret\udcff@db.example/portfolio"),
        ("DATABASE_URL", "postgresql://app:topsecret@aws-0.pooler.supabase.com:6543/postgres"),
        ("SIDECAR_URL", "127.0.0.1:4040"),
        ("SIDECAR_URL", "https://127.0.0.1:4040"),
        ("SIDECAR_URL", "http://127.0.0.1:99999"),
        ("SIDECAR_URL", "http://sidecar..example:4040"),
        ("SIDECAR_URL", "http://a b:80"),
        ("SIDECAR_URL", "http://127.0.0.1:4040/is-leader"),
        ("INTERNAL_BIND", "9101"),
        ("INTERNAL_BIND", "0.0.0.0:0"),
        ("INTERNAL_BIND", "example.com:9101"),
        ("API_BIND", "8080"),
        ("API_BIND", "0.0.0.0:0"),
        ("API_BIND", "0.0.0.0:65536"),
        ("API_BIND", "localhost:8080"),
        ("API_BIND", "x" * 5000),
        ("API_BIND", "x" * 5000 + ":1"),
        ("API_BIND", "0.0.0.0:" + "1" * 5000),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "null"),
        ("CORS_ORIGINS", "app.example.com"),
        ("CORS_ORIGINS", "https://*.example.com"),
        ("CORS_ORIGINS", "https://app.example.com/"),
        ("CORS_ORIGINS", "https://app.example.com/page"),
        ("CORS_ORIGINS", "https://app.example.com?key=topsecret"),
        ("CORS_ORIGINS", "https://me:topsecret@app.example.com"),
        ("CORS_ORIGINS", "https://App.example.com"),
        ("CORS_ORIGINS", "https://app.example.com:443"),
        ("CORS_ORIGINS", "https://app.example.com:99999"),
        ("CORS_ORIGINS", "https://app.example.com:"),
        ("CORS_ORIGINS", "https://app..example.com"),
        ("CORS_ORIGINS", "https://münchen.example"),
        ("CORS_ORIGINS", "https://a.example https://b.example"),
        ("CORS_ORIGINS", "https://a.example,"),
        ("CORS_ORIGINS", "https://a.example,,https://b.example"),
        ("CORS_ORIGINS", "ftp://a.example"),
        ("CORS_ORIGINS", "http://127.1"),
        ("CORS_ORIGINS", "http://[::0:1]"),
        ("CORS_ORIGINS", "http://[fe80::1%eth0]"),
        ("CORS_ORIGINS", "https://" + "x" * 5000),
        ("CORS_ORIGINS", "https://a.example\udcff"),
        ("CORS_ORIGINS", "https://a.example\nhttps://b.example"),
        ("MARKET_CALENDAR", "LSE"),
        ("MARKET_CALENDAR", "N" * 5000),
        ("TRACKER_INTERVAL", "soon"),
        ("TRACKER_INTERVAL", "0"),
        ("TRACKER_INTERVAL", "-1"),
        ("TRACKER_INTERVAL", "nan"),
        ("TRACKER_INTERVAL", "inf"),
        ("PRICE_SOURCE", "crystal ball"),
        ("PRICE_SEED", "1.5"),
        ("PRICE_SEED", "9" * 5000),
        ("APCA_API_KEY_ID", "two topsecret words"),
        ("APCA_API_SECRET_KEY", "topsecret\nline"),
        ("ALPACA_FEED", "cnn"),
        ("ALPACA_DATA_URL", "data.alpaca.markets"),
        ("ALPACA_DATA_URL", "http://data.alpaca.markets"),
        ("ALPACA_DATA_URL", "https://me:topsecret@data.alpaca.markets"),
        ("ALPACA_DATA_URL", "https://data.alpaca.markets/v2"),
        ("ALPACA_DATA_URL", "https://data.alpaca.markets/v1beta1/"),
        ("ALPACA_DATA_URL", "https://paper-api.alpaca.markets"),
        ("ALPACA_DATA_URL", "https://api.alpaca.markets/"),
        ("AUTH", "on"),
        ("SUPABASE_URL", "project.supabase.co"),
        ("SUPABASE_URL", "http://project.supabase.co"),
        ("SUPABASE_URL", "https://project..supabase.co"),
        ("SUPABASE_URL", "https://project supabase.co"),
        ("SUPABASE_URL", "https://project.supabase.co?apikey=topsecret"),
        ("SUPABASE_URL", "https://project.supabase.co#topsecret"),
        ("SUPABASE_URL", "https://project.supabase.co?"),
        ("SUPABASE_URL", "https://project.supabase.co/auth/v1"),
        ("SUPABASE_URL", "https://project.supabase.co/Auth/V1/"),
        ("SUPABASE_URL", "https://id.example.com/rest/v1/"),
        ("SUPABASE_URL", "http://127.0.0.1:54321/auth/v1"),
        ("SUPABASE_URL", "https://project.supabase.co/project"),
        ("SUPABASE_URL", "https://project.supabase.co:8443"),
        ("SUPABASE_URL", "https://db.project.supabase.co"),
        ("SUPABASE_URL", "https://supabase.com/dashboard/project/project"),
        ("SUPABASE_JWT_SECRET", "topsecret"),
        ("SUPABASE_JWT_SECRET", "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9." + "topsecret" * 3),
        ("SUPABASE_JWT_SECRET", "sb_secret_" + "topsecret" * 3),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "LOUD"),
        ("SHUTDOWN_TIMEOUT", "0"),
        ("SHUTDOWN_TIMEOUT", "a while"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it_and_exit_status_2(
    name: str, value: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    assert main([]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"{name}: ")
    assert output.err.count("\n") == 1
    assert "topsecret" not in output.err
    assert len(output.err) < 120


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LOG_FORMAT", "xml", "'xml' is not 'json' or 'text'"),
        ("PRICE_SOURCE", " ALPACA ", "'ALPACA' is not 'simulated' or 'alpaca'"),
        ("TRACKER_INTERVAL", "30 s", "'30 s' is not a valid number"),
        ("TRACKER_INTERVAL", "0.05", "'0.05' is not greater than or equal to 0.1"),
        ("TRACKER_INTERVAL", "3601", "'3601' is not less than or equal to 3600"),
        ("SHUTDOWN_TIMEOUT", "inf", "'inf' is not a finite number"),
        ("PRICE_SEED", "1e3", "'1e3' is not a valid integer"),
        ("SIDECAR_URL", "http://\udcff:1", "not a valid string"),
        ("CORS_ORIGINS", "https://a.example,*", "'*' is not of the form https://HOST[:PORT]"),
        ("CORS_ORIGINS", "https://a.example,http://B:80/", "write it as browsers send it: http://b"),
    ],
)
def test_the_error_for_a_bad_value_says_what_the_setting_accepts(
    name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert main([]) == 2
    assert capsys.readouterr() == ("", f"{name}: {expected}\n")


@pytest.mark.parametrize(
    "password", ["top%secret", "%topsecret", "topsecret%", "%23%2F%3F%40", "top:secret", "%ff", "ä"]
)
@pytest.mark.parametrize(
    "where", ["127.0.0.1:{port}", "[::1]:{port}", "127.0.0.1:{port},127.0.0.2:{port}/", "/?host=127.0.0.1&port={port}"]
)
def test_a_url_with_any_password_connects_to_its_host_and_the_password_is_never_shown(
    password: str, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://app:{password}@" + where.format(port=free_port()))
    monkeypatch.setattr("service.telemetry.set_up_logs", lambda *_: None)  # a configured log would outlast the test
    assert main(["migrate"]) == 1
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert output.err.startswith("database: cannot connect: ")
    assert password not in output.err


@pytest.mark.parametrize(
    ("name", "value"),
    [("PGPORT", "topsecret"), ("PGPORT", "1,2,3"), ("PGSSLMODE", "loud"), ("PGTARGETSESSIONATTRS", "none")],
)
@pytest.mark.parametrize("command", ["migrate", "sample"])
def test_a_bad_libpq_variable_is_one_line_without_secrets(
    command: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://app:topsecret@127.0.0.1/portfolio")
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("service.telemetry.set_up_logs", lambda *_: None)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # they may write to another test's closed output
    assert main([command]) == 1
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert output.err.startswith("database")
    assert "topsecret" not in output.err


@pytest.mark.parametrize(
    "written",
    [
        "https://project.supabase.co",
        "https://project.supabase.co/",
        "https://project.supabase.co//",
        "https://project.supabase.co:443",
        "HTTPS://Project.Supabase.CO:443/",
        "https://project.supabase.co.",
    ],
)
def test_every_spelling_of_a_projects_address_gives_the_same_issuer(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_URL", written)
    url = read_settings().supabase_url
    assert url is not None
    assert issuer_of(url) == "https://project.supabase.co/auth/v1"


def test_origins_are_separated_by_commas_and_none_is_the_default() -> None:
    assert read_settings({"DATABASE_URL": GOOD}).cors_origins == frozenset()
    assert read_settings({"DATABASE_URL": GOOD, "CORS_ORIGINS": " "}).cors_origins == frozenset()
    given = "https://app.example.com, http://localhost:5173,http://[::1]:8000"
    expected = {"https://app.example.com", "http://localhost:5173", "http://[::1]:8000"}
    assert read_settings({"DATABASE_URL": GOOD, "CORS_ORIGINS": given}).cors_origins == expected


def test_every_bad_setting_is_reported_on_its_own_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_FORMAT", "xml")
    monkeypatch.delenv("DATABASE_URL")
    assert main(["migrate"]) == 2
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["DATABASE_URL", "LOG_FORMAT"]


@pytest.mark.parametrize("missing", ["APCA_API_KEY_ID", "APCA_API_SECRET_KEY"])
def test_price_source_alpaca_needs_both_keys(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRICE_SOURCE", "alpaca")
    for name in {"APCA_API_KEY_ID", "APCA_API_SECRET_KEY"} - {missing}:
        monkeypatch.setenv(name, "topsecret")
    assert main([]) == 2
    assert capsys.readouterr().err == f"{missing}: missing; PRICE_SOURCE=alpaca needs it\n"


@pytest.fixture
def signals_as_they_were() -> Iterator[None]:
    """Restore the signal handlers. A service ignores signals at its end; child processes inherit ignored signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_as_they_were")
@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        (None, "SUPABASE_URL: missing; or set AUTH=off, which lets everybody read and change everything\n"),
        ("supabase", "SUPABASE_URL: missing; AUTH=supabase needs it\n"),
    ],
)
def test_without_settings_for_authentication_the_service_does_not_start(
    auth: str | None, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.telemetry.set_up_logs", lambda *_: None)  # a configured log would outlast the test
    monkeypatch.setenv("PRICE_SOURCE", "simulated")
    if auth is not None:
        monkeypatch.setenv("AUTH", auth)
    assert main([]) == 2
    assert capsys.readouterr().err == expected


@pytest.mark.usefixtures("signals_as_they_were")
def test_without_a_price_source_the_service_does_not_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.telemetry.set_up_logs", lambda *_: None)  # a configured log would outlast the test
    monkeypatch.setenv("AUTH", "off")
    assert main([]) == 2
    expected = "PRICE_SOURCE: missing; choose alpaca, or simulated for made-up prices\n"
    assert capsys.readouterr() == ("", expected)


def test_settings_that_auth_needs_are_checked_before_the_start() -> None:
    with pytest.raises(SettingsError, match=r"^SUPABASE_URL: missing; AUTH=supabase needs it$"):
        read_settings({"DATABASE_URL": "postgresql://db.example/portfolio", "AUTH": "supabase"})


def test_a_wrong_command_is_one_line_and_exit_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dance"]) == 2
    assert capsys.readouterr().err == "python -m service: no command 'dance'; --help lists the commands\n"


COMMANDS = ("serve", "migrate", "sample", "run", "import", "fence", "token", "healthcheck")


@pytest.mark.parametrize("help_", ["-h", "--help"])
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_prints_its_usage_without_any_setting(
    command: str, help_: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    assert status_of(command, help_) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"usage: python -m service {command}")
    assert output.err == ""


def test_the_usage_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--help") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:2] == "  "] == list(COMMANDS)


def test_a_closed_pipe_causes_no_traceback() -> None:
    """Run a command whose output has no reader, as in `python -m service --help | head -0`."""
    theirs, ours = os.pipe()
    os.close(theirs)
    with os.fdopen(ours, "wb") as out:
        command = [sys.executable, "-m", "service", "--help"]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("command", COMMANDS)
def test_arguments_that_a_command_does_not_take_are_exit_status_2(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(command, "--dance") == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert f"python -m service {command}: " in output.err.splitlines()[-1]


@pytest.mark.parametrize(
    "command",
    [("migrate",), ("sample",), ("run", "eod"), ("import", "prices", "none.csv"), ("fence", "daily_scheduler")],
)
def test_each_command_names_the_setting_that_it_lacks(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    assert status_of(*command) == 2
    assert capsys.readouterr() == ("", "DATABASE_URL: missing\n")


def status_of(*arguments: str) -> object:
    """The exit status, which `main` returns or, through argparse, raises."""
    try:
        return main(list(arguments))
    except SystemExit as ended:
        return ended.code


def test_an_empty_variable_counts_as_not_set_and_spaces_around_a_value_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRACKER_INTERVAL", "")
    monkeypatch.setenv("LOG_LEVEL", " DEBUG ")
    monkeypatch.setenv("API_BIND", " [::1]:80 ")
    settings = read_settings()
    assert (settings.tracker_interval, settings.log_level, settings.api_bind) == (30.0, "debug", Address("::1", 80))


def test_the_text_of_the_settings_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY", "SUPABASE_JWT_SECRET"):
        monkeypatch.setenv(name, "topsecret" * 5)
    assert "topsecret" not in repr(read_settings())


@pytest.mark.parametrize("api", ["0.0.0.0:9101", "127.0.0.1:9101", "[::]:9101"])
def test_two_listeners_at_one_address_are_refused_and_both_named(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_BIND", api)
    with pytest.raises(SettingsError, match=r"^INTERNAL_BIND: 0\.0\.0\.0:9101 overlaps with API_BIND .*$"):
        read_settings()


def test_two_listeners_may_share_a_port_at_different_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_BIND", "127.0.0.1:8080")
    monkeypatch.setenv("INTERNAL_BIND", "127.0.0.2:8080")
    assert str(read_settings().internal_bind) == "127.0.0.2:8080"
