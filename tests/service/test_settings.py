"""The settings: what is refused, and how that is said."""

import pytest

from service.__main__ import main
from service.address import Address
from service.settings import read_settings

GOOD = "postgresql://app:topsecret@db.example/portfolio"
VARIABLES = (
    "DATABASE_URL SIDECAR_URL API_BIND MARKET_CALENDAR TRACKER_INTERVAL PRICE_SOURCE PRICE_SEED LOG_FORMAT LOG_LEVEL"
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
        ("DATABASE_URL", "postgresql://app:topsecret@aws-0.pooler.supabase.com:6543/postgres"),
        ("SIDECAR_URL", "127.0.0.1:4040"),
        ("SIDECAR_URL", "https://127.0.0.1:4040"),
        ("SIDECAR_URL", "http://127.0.0.1:99999"),
        ("SIDECAR_URL", "http://127.0.0.1:4040/is-leader"),
        ("API_BIND", "8080"),
        ("API_BIND", "0.0.0.0:0"),
        ("API_BIND", "0.0.0.0:65536"),
        ("API_BIND", "localhost:8080"),
        ("MARKET_CALENDAR", "LSE"),
        ("TRACKER_INTERVAL", "soon"),
        ("TRACKER_INTERVAL", "0"),
        ("TRACKER_INTERVAL", "-1"),
        ("TRACKER_INTERVAL", "nan"),
        ("TRACKER_INTERVAL", "inf"),
        ("PRICE_SOURCE", "crystal ball"),
        ("PRICE_SEED", "1.5"),
        ("APCA_API_KEY_ID", "two topsecret words"),
        ("APCA_API_SECRET_KEY", "topsecret\nline"),
        ("ALPACA_FEED", "cnn"),
        ("ALPACA_DATA_URL", "data.alpaca.markets"),
        ("ALPACA_DATA_URL", "http://data.alpaca.markets"),
        ("ALPACA_DATA_URL", "https://me:topsecret@data.alpaca.markets"),
        ("AUTH", "on"),
        ("SUPABASE_URL", "project.supabase.co"),
        ("SUPABASE_URL", "http://project.supabase.co"),
        ("SUPABASE_URL", "https://project.supabase.co?apikey=topsecret"),
        ("SUPABASE_JWT_SECRET", "topsecret"),
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
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"{name}: ")
    assert told.err.count("\n") == 1
    assert "topsecret" not in told.err


def test_each_bad_setting_has_its_own_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOG_FORMAT", "xml")
    monkeypatch.delenv("DATABASE_URL")
    assert main(["migrate"]) == 2
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["DATABASE_URL", "LOG_FORMAT"]


@pytest.mark.parametrize("missing", ["APCA_API_KEY_ID", "APCA_API_SECRET_KEY"])
def test_alpaca_s_prices_need_both_keys(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRICE_SOURCE", "alpaca")
    for name in {"APCA_API_KEY_ID", "APCA_API_SECRET_KEY"} - {missing}:
        monkeypatch.setenv(name, "topsecret")
    assert main([]) == 2
    assert capsys.readouterr().err == f"{missing}: missing; PRICE_SOURCE=alpaca needs it\n"


@pytest.mark.parametrize(
    ("auth", "told"),
    [
        (None, "SUPABASE_URL: missing; or set AUTH=off, which lets everybody read and change everything\n"),
        ("supabase", "SUPABASE_URL: missing; AUTH=supabase needs it\n"),
    ],
)
def test_without_a_word_of_who_may_come_in_the_service_does_not_start(
    auth: str | None, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.telemetry.set_up_logs", lambda *_: None)  # it would outlast the test
    if auth is not None:
        monkeypatch.setenv("AUTH", auth)
    assert main([]) == 2
    assert capsys.readouterr().err == told


def test_a_wrong_command_is_one_line_and_exit_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dance"]) == 2
    assert capsys.readouterr().err == "python -m service: no command 'dance'; --help names those there are\n"


def test_an_empty_variable_counts_as_not_set_and_spaces_around_a_value_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRACKER_INTERVAL", "")
    monkeypatch.setenv("LOG_LEVEL", " DEBUG ")
    monkeypatch.setenv("API_BIND", " [::1]:80 ")
    settings = read_settings()
    assert (settings.tracker_interval, settings.log_level, settings.api_bind) == (30.0, "debug", Address("::1", 80))


def test_no_secret_is_in_the_settings_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY", "SUPABASE_JWT_SECRET"):
        monkeypatch.setenv(name, "topsecret" * 5)
    assert "topsecret" not in repr(read_settings())


@pytest.mark.parametrize(
    ("bind", "reachable"),
    [("0.0.0.0:1", "127.0.0.1"), ("127.0.0.7:1", "127.0.0.7"), ("[::]:1", "::1"), ("[::1]:1", "::1")],
)
def test_an_address_that_stands_for_all_is_reached_over_loopback(bind: str, reachable: str) -> None:
    address = Address.parse(bind)
    assert address.reachable == reachable
    assert str(address) == bind
