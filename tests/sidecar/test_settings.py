"""The environment: valid variables are read, and each invalid variable is reported in one line with its name."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from ssl import CERT_NONE, SSLContext, TLSVersion

import pytest

from runtime.addresses import Address
from sidecar.protocol import Timings
from sidecar.redis.connection import Connector
from sidecar.settings import SettingsError, control_address, read

SECRET = "hunter2"


def run(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the sidecar as a process that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_default_settings_match_the_contract() -> None:
    settings = read({})
    assert settings.timings == Timings(ttl=30, heartbeat=10, grant_ttl=5, call_limit=2)
    assert settings.keys == {
        "background_services": "portfolio:background_services:leader",
        "daily_scheduler": "portfolio:daily_scheduler:leader",
    }
    assert (settings.failover_guard, settings.min_replicas, settings.require_client) == (True, 0, True)
    assert (settings.control, settings.metrics) == (Address("127.0.0.1", 4040), Address("0.0.0.0", 9102))
    assert (settings.redis.place, settings.log_format, settings.log_level) == ("redis://localhost:6379", "json", "INFO")
    assert settings.instance_id is None


def test_variables_are_read_and_an_empty_variable_counts_as_not_set() -> None:
    settings = read(
        {
            "LEASE_TTL": "1.5", "HEARTBEAT_INTERVAL": "0.5", "GRANT_TTL": ".25", "REDIS_TIMEOUT": "", "LEASES": "a , b",
            "LEASE_KEY": "x:{name}", "FAILOVER_GUARD": "False", "MIN_REPLICAS": "2", "REQUIRE_CLIENT": "0",
            "INSTANCE_ID": "me", "CONTROL_BIND": "[::1]:1", "METRICS_BIND": "127.0.0.2:65535", "LOG_FORMAT": "TEXT",
            "LOG_LEVEL": "debug", "REDIS_HOST": "redis.internal", "REDIS_PORT": "7000",
        }
    )  # fmt: skip
    assert settings.timings == Timings(ttl=1.5, heartbeat=0.5, grant_ttl=0.25, call_limit=0.1)
    assert settings.keys == {"a": "x:a", "b": "x:b"}
    assert (settings.failover_guard, settings.min_replicas, settings.require_client) == (False, 2, False)
    assert (settings.control, settings.metrics) == (Address("::1", 1), Address("127.0.0.2", 65535))
    assert (settings.redis.place, settings.instance_id) == ("redis://redis.internal:7000", "me")
    assert (settings.log_format, settings.log_level) == ("text", "DEBUG")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (f"redis://:{SECRET}@h:1/2", "redis://h:1"),
        (f"rediss://user:{SECRET}@h", "rediss://h"),
        (f"rediss://:{SECRET}@[::1]:6380", "rediss://[::1]:6380"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock"),
    ],
)
def test_the_displayed_address_contains_no_secret(url: str, place: str) -> None:
    redis = read({"REDIS_URL": url}).redis
    assert redis.place == place
    assert SECRET not in repr(redis)
    Connector(redis)


BAD = [
    ("LEASE_TTL", "soon"),
    ("LEASE_TTL", "nan"),
    ("LEASE_TTL", "inf"),
    ("LEASE_TTL", "0"),
    ("LEASE_TTL", "0.1"),
    ("HEARTBEAT_INTERVAL", "-1"),
    ("HEARTBEAT_INTERVAL", "21.1"),
    ("GRANT_TTL", "15.1"),
    ("REDIS_TIMEOUT", "0.001"),
    ("LEASES", "a,,b"),
    ("LEASES", "a,a"),
    ("LEASES", "a b"),
    ("LEASES", "."),
    ("LEASES", "a,.."),
    ("LEASE_KEY", "one-for-all"),
    ("LEASE_KEY", "{{{name}}}"),
    ("LEASE_KEY", "{a}:{b}:{name}"),
    ("LEASE_KEY", "{}:{name}"),
    ("LEASE_KEY", "fence:{name}"),
    ("FAILOVER_GUARD", "maybe"),
    ("MIN_REPLICAS", "-1"),
    ("MIN_REPLICAS", "1.5"),
    ("REQUIRE_CLIENT", "2"),
    ("INSTANCE_ID", "disabled"),
    ("INSTANCE_ID", "two words"),
    ("CONTROL_BIND", "0.0.0.0:4040"),
    ("CONTROL_BIND", "localhost"),
    ("CONTROL_BIND", "127.0.0.1:0"),
    ("METRICS_BIND", "here:9102"),
    ("METRICS_BIND", "127.0.0.1:70000"),
    ("LOG_FORMAT", "xml"),
    ("LOG_LEVEL", "loud"),
    ("REDIS_PORT", "port"),
    ("REDIS_HOST", "a..b"),
    ("REDIS_HOST", "two words"),
    ("REDIS_HOST", f"redis://:{SECRET}@h"),
    ("REDIS_HOST", "x" * 64),
    ("REDIS_HOST", "10.0.0"),
    ("REDIS_HOST", "6379"),
    ("REDIS_HOST", "-h"),
    ("REDIS_HOST", "1::2::3"),
    ("REDIS_HOST", f"user:{SECRET}"),
    ("REDIS_HOST", "a." * 127 + "a"),
    ("REDIS_PORT", "tcp://10.0.0.7:6379"),
    ("REDIS_PORT", "0"),
    ("INSTANCE_ID", "$HOSTNAME"),
    ("INSTANCE_ID", "${HOSTNAME}"),
    ("CONTROL_BIND", "::1:4040"),
    ("CONTROL_BIND", "http://127.0.0.1:4040"),
    ("CONTROL_BIND", ":4040"),
    ("METRICS_BIND", "9102"),
    ("LEASE_KEY", "history:{name}"),
    ("LEASE_KEY", "a b:{name}"),
    ("LEASE_KEY", "a\x07b:{name}"),
    ("ECS_CONTAINER_METADATA_URI_V4", "169.254.170.2/v4"),
    ("ECS_CONTAINER_METADATA_URI_V4", "ftp://169.254.170.2/v4"),
    ("ECS_CONTAINER_METADATA_URI_V4", "http:///v4"),
    ("ECS_CONTAINER_METADATA_URI_V4", f"http://user:{SECRET}@h/v4"),
    ("ECS_CONTAINER_METADATA_URI_V4", "http://h:0/v4"),
    ("ECS_CONTAINER_METADATA_URI_V4", "http://[::1/v4"),
    ("REDIS_URL", "redis://h:0"),
    ("REDIS_URL", "redis://h:70000"),
    ("REDIS_URL", f"redis://{SECRET}@h"),
    ("REDIS_URL", "redis://h/1?db=2"),
    ("REDIS_URL", "redis://h?db=-1"),
    ("REDIS_URL", "redis://h,i:6379"),
    ("REDIS_URL", "redis://256.1.1.1"),
    ("REDIS_URL", "redis://10.0.0"),
    ("REDIS_URL", "redis://-h"),
    ("REDIS_URL", "redis://%24HOST:6379"),
    ("REDIS_URL", f"redis://:{SECRET}@[1::zz]"),
    ("REDIS_URL", '"redis://h"'),
    ("REDIS_URL", f"http://:{SECRET}@h"),
    ("REDIS_URL", f"redis://:{SECRET}@h:port"),
    ("REDIS_URL", f"redis://:{SECRET}@h?no_such_option=1"),
    ("REDIS_URL", f"redis://:{SECRET}@h?db=x"),
    ("REDIS_URL", f"redis://:{SECRET}@h/{SECRET}"),
    ("REDIS_URL", f"redis://:12#{SECRET}@h"),
    ("REDIS_URL", f"redis://u:12#{SECRET}@h"),
    ("REDIS_URL", f"redis://u:12?{SECRET}=1@h"),
    ("REDIS_URL", f"redis://u:12/{SECRET}@h"),
    ("REDIS_URL", f"redis://:{SECRET}@h#"),
    ("REDIS_URL", f"redis://:{SECRET}@"),
    ("REDIS_URL", "redis://:6379"),
    ("REDIS_URL", "redis:///1"),
    ("REDIS_URL", f"redis://:{SECRET}@a..b"),
    ("REDIS_URL", f"redis://{SECRET} h:6379"),
    ("REDIS_URL", "unix://"),
    ("REDIS_URL", "unix://run/redis.sock"),
    ("REDIS_URL", f"redis://:{SECRET}@h?ssl_ca_certs=/ca.pem"),
    ("REDIS_URL", f"rediss://:{SECRET}@h?ssl_cert_reqs=perhaps"),
    ("REDIS_URL", f"rediss://:{SECRET}@h?ssl_min_version=1.2"),
    ("REDIS_URL", f"rediss://:{SECRET}@h?ssl_ca_certs=/no/such/file"),
]


@pytest.mark.parametrize(
    ("host", "remedy"),
    [
        ("redis.internal:6379", "put the port into REDIS_PORT"),
        ("10.0.0.7:6379", "put the port into REDIS_PORT"),
        ("redis.internal:", "put the port into REDIS_PORT"),
        ("[::1]:6379", "put the port into REDIS_PORT"),
        ("[::1]", "without brackets"),
        ("redis://redis.internal", "put a URL into REDIS_URL"),
        ("rediss://redis.internal:6379/0", "put a URL into REDIS_URL"),
        (f"user:{SECRET}@redis.internal", "put the user and the password into REDIS_USERNAME and REDIS_PASSWORD"),
        ("redis.internal/0", "into REDIS_URL"),
        ("/run/redis.sock", "into REDIS_URL"),
        ("one,two", "one name or one address"),
        ('"redis.internal"', "quotes"),
        ("${REDIS_HOST}", "a placeholder that was not replaced"),
    ],
)
def test_an_invalid_host_is_refused_with_a_remedy(host: str, remedy: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read({"REDIS_HOST": host})
    text = str(refused.value)
    assert text.startswith("REDIS_HOST: ")
    assert remedy in text
    assert "\n" not in text
    assert SECRET not in text


@pytest.mark.parametrize(
    "host",
    [
        "redis",
        "redis_1",
        "Redis.Internal.",
        "10.0.0.7",
        "::1",
        "fe80::1%eth0",
        "2001:db8::1",
        "a-b.c9",
        "bücher.example",
    ],
)
def test_a_valid_host_is_accepted(host: str) -> None:
    assert read({"REDIS_HOST": host}).redis.host == host


def test_an_unreadable_file_in_the_url_is_reported_with_its_option() -> None:
    expected = (
        r"^REDIS_URL: the option 'ssl_ca_certs': the file /no/such/file cannot be read: No such file or directory$"
    )
    with pytest.raises(SettingsError, match=expected):
        Connector(read({"REDIS_URL": f"rediss://:{SECRET}@h?ssl_ca_certs=/no/such/file"}).redis)


OPTIONS = [
    "retry", "encoding", "credential_provider", "redis_connect_func", "retry_on_error", "socket_timeout", "host",
    "protocol", "password", "parser_class", "max_connections", "health_check_interval", "client_name",
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_an_invalid_value_is_refused_by_name_in_one_line_without_secrets(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Connector(read({name: value}).redis)
    text = str(refused.value)
    assert text.startswith(f"{name}: ")
    assert "\n" not in text
    assert SECRET not in text


@pytest.mark.parametrize("option", OPTIONS)
def test_an_unknown_option_of_the_url_is_refused_by_name(option: str) -> None:
    for value in ("", "3"):
        with pytest.raises(SettingsError, match=f"^REDIS_URL: the option '{option}' is not one of db, ssl_.*"):
            read({"REDIS_URL": f"redis://:{SECRET}@h/?{option}={value}"})


@pytest.mark.parametrize("url", ["rediss://h", "REDISS://h", " Rediss://h"])
def test_every_spelling_of_the_rediss_scheme_enables_tls(url: str) -> None:
    assert read({"REDIS_URL": url}).redis.tls is not None


def test_every_allowed_option_of_the_url_reaches_the_connection() -> None:
    asked = "db=3&ssl_cert_reqs=none&ssl_check_hostname=false&ssl_ciphers=AES256-GCM-SHA384&ssl_min_version=771"
    connection = Connector(read({"REDIS_URL": f"rediss://:a%23b@h?{asked}"}).redis)()
    assert (connection.db, connection.password) == (3, "a#b")
    context: SSLContext = connection._connection_arguments()["ssl"]
    assert (context.check_hostname, context.verify_mode) == (False, CERT_NONE)
    assert context.minimum_version is TLSVersion.TLSv1_2
    assert "AES256-GCM-SHA384" in {each["name"] for each in context.get_ciphers()}
    assert "AES128-GCM-SHA256" not in {each["name"] for each in context.get_ciphers()}


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"REDIS_URL": "redis://h", "REDIS_HOST": "h"}, "REDIS_HOST"),
        ({"REDIS_USERNAME": "u"}, "REDIS_PASSWORD"),
        ({"REDIS_URL": f"redis://:{SECRET}@h", "REDIS_PASSWORD": "other"}, "REDIS_PASSWORD"),
        ({"LEASES": "a,ab", "LEASE_KEY": "x:{name}"}, "LEASE_KEY"),
    ],
)
def test_contradicting_settings_are_refused(environment: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=f"^{named}: "):
        read(environment)


def test_every_invalid_setting_is_named_in_a_separate_line() -> None:
    bad = {
        "LEASE_TTL": "soon", "LEASES": "a b", "REDIS_URL": "h", "REDIS_USERNAME": "u", "METRICS_BIND": "here",
        "CONTROL_BIND": "0.0.0.0:1", "LOG_LEVEL": "loud",
    }  # fmt: skip
    named = sorted(bad.keys() - {"REDIS_USERNAME"} | {"REDIS_PASSWORD"})
    with pytest.raises(SettingsError) as refused:
        read(bad)
    assert sorted(line.partition(": ")[0] for line in str(refused.value).splitlines()) == named
    ended = run(bad)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert sorted(line.split(": ")[1] for line in ended.stderr.splitlines()) == named
    assert all(line.startswith("sidecar: ") for line in ended.stderr.splitlines())


def test_unsafe_timings_are_reported_together_with_other_invalid_settings() -> None:
    with pytest.raises(SettingsError) as refused:
        read({"GRANT_TTL": "20", "HEARTBEAT_INTERVAL": "25", "LOG_FORMAT": "xml"})
    assert [line.partition(": ")[0] for line in str(refused.value).splitlines()] == [
        "GRANT_TTL", "HEARTBEAT_INTERVAL", "LOG_FORMAT",
    ]  # fmt: skip


def test_a_timing_is_not_compared_with_an_unreadable_timing() -> None:
    with pytest.raises(SettingsError, match=r"^LEASE_TTL: 'soon' is not a number of seconds$"):
        read({"LEASE_TTL": "soon", "HEARTBEAT_INTERVAL": "60"})


def test_an_invalid_setting_ends_the_process_with_status_2_and_one_line() -> None:
    for name, value in (
        ("GRANT_TTL", "20"),
        ("REDIS_URL", f"redis://:{SECRET}@h?retry=3"),
        ("REDIS_URL", f"redis://:12#{SECRET}@h"),
    ):
        ended = run({name: value})
        assert ended.returncode == 2
        assert ended.stderr.count("\n") == 1
        assert ended.stderr.startswith(f"sidecar: {name}: ")
        assert SECRET not in ended.stderr + ended.stdout


def test_a_port_in_use_ends_the_process_with_status_2_and_one_line() -> None:
    for name in ("CONTROL_BIND", "METRICS_BIND"):
        with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            free = f"127.0.0.1:{other.getsockname()[1]}"
            other.close()
            ended = run({"CONTROL_BIND": free, "METRICS_BIND": free, name: address, "INSTANCE_ID": "me"})
        assert ended.returncode == 2
        assert ended.stderr == f"sidecar: {name}: cannot listen on {address}: Address already in use\n"


def test_an_unknown_command_is_one_line_and_status_2() -> None:
    ended = run({}, "heathcheck")
    expected = "sidecar: no command 'heathcheck'; --help lists the commands and their arguments\n"
    assert (ended.returncode, ended.stderr) == (2, expected)


def test_the_health_check_uses_the_address_in_control_bind() -> None:
    assert control_address({"CONTROL_BIND": "127.0.0.1:5"}) == Address("127.0.0.1", 5)
    ended = run({"CONTROL_BIND": "127.0.0.1:1"}, "healthcheck")
    assert (ended.returncode, ended.stderr, ended.stdout) == (1, "", "")


@pytest.mark.parametrize("bind", ["nonsense", "127.0.0.1:0", "0.0.0.0:4040", "localhost:4040"])
def test_the_health_check_of_an_invalid_address_fails_without_output(bind: str) -> None:
    ended = run({"CONTROL_BIND": bind}, "healthcheck")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.startswith("sidecar: CONTROL_BIND: ")
    assert ended.stdout.count("\n") == 1


def test_the_modules_of_tls_password_files_and_iam_are_imported_only_when_used(tmp_path: Path) -> None:
    """A setting imports only the modules that it needs."""
    ours = {"sidecar.redis.tls", "sidecar.redis.credentials", "sidecar.redis.iam", "sidecar.redis.aws_signature"}
    password = tmp_path / "password"
    password.write_text("word")
    iam = {"REDIS_IAM": "cache", "REDIS_USERNAME": "u", "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "k"}
    program = "import os, sys, sidecar.run as r; r.Connector(r.read(os.environ).redis); print(*sys.modules)"
    expected: list[tuple[dict[str, str], set[str]]] = [
        ({}, set()),
        ({"REDIS_PASSWORD": "word"}, set()),
        ({"REDIS_TLS": "true"}, {"sidecar.redis.tls"}),
        ({"REDIS_PASSWORD_FILE": str(password)}, {"sidecar.redis.credentials"}),
        ({"REDIS_TLS": "true", **iam, "AWS_SECRET_ACCESS_KEY": "s"}, ours),
    ]
    for environment, used in expected:
        words = [sys.executable, "-c", program]
        env = {"PATH": os.environ["PATH"], **environment}
        ended = subprocess.run(words, env=env, capture_output=True, text=True, timeout=30, check=True)
        assert set(ended.stdout.split()) & ours == used


def test_the_health_check_imports_no_slow_module() -> None:
    """ECS starts the health check as a new process every 5 s, so a slow import costs time at each check."""
    words = [sys.executable, "-X", "importtime", "-m", "sidecar", "healthcheck"]
    env = {"PATH": os.environ["PATH"], "CONTROL_BIND": "127.0.0.1:1"}
    ended = subprocess.run(words, env=env, capture_output=True, text=True, timeout=30, check=False)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.stderr.splitlines()}
    assert {"sidecar", "socket"} <= imported
    slow = {"aiohttp", "asyncio", "http", "json", "logging", "prometheus_client", "pythonjsonlogger", "redis", "uvloop"}
    assert not imported & slow
