"""An invalid TLS setting is reported at the start, in one line that names the setting and the file."""

import os
from pathlib import Path

import pytest

from sidecar.redis.connection import Connector
from sidecar.settings import SettingsError, read
from tests.sidecar.redis.test_tls_texts import Certificates
from tests.sidecar.redis.test_tls_texts import files as files

SECRET = "hunter2"


def refused(environment: dict[str, str]) -> str:
    """The error line for these settings."""
    with pytest.raises(SettingsError) as raised:
        Connector(read(environment).redis)
    line = str(raised.value)
    assert "\n" not in line
    assert SECRET not in line
    return line


@pytest.fixture
def settings(files: Certificates) -> dict[str, str]:
    return {
        "REDIS_TLS": "true",
        "REDIS_TLS_CA_FILE": str(files.ca),
        "REDIS_TLS_CERT_FILE": str(files.certificate),
        "REDIS_TLS_KEY_FILE": str(files.key),
    }


@pytest.mark.parametrize("name", ["REDIS_TLS_CA_FILE", "REDIS_TLS_CERT_FILE", "REDIS_TLS_KEY_FILE"])
def test_an_unusable_tls_file_is_a_one_line_error_that_names_the_setting(
    files: Certificates, settings: dict[str, str], tmp_path: Path, name: str
) -> None:
    empty, pipe = tmp_path / "empty", tmp_path / "pipe"
    empty.touch()
    os.mkfifo(pipe)
    what = "private key" if name == "REDIS_TLS_KEY_FILE" else "certificate"
    for path, problem in (
        (tmp_path / "none", "cannot be read: No such file or directory"),
        (tmp_path, "is not a regular file"),
        (pipe, "is not a regular file"),
        (empty, f"contains no {what} in PEM"),
        (files.key if what == "certificate" else files.certificate, f"contains no {what} in PEM"),
    ):
        assert refused(settings | {name: str(path)}) == f"{name}: the file {path} {problem}"
    assert refused(settings | {name: "a\0b"}).endswith(" cannot be read: its path is malformed")
    pem = files.certificate.read_text()
    assert refused(settings | {name: pem}) == f"{name}: contains a certificate or a key; set the path of a file"


def test_a_key_that_does_not_match_the_certificate_is_reported_with_both_files(
    files: Certificates, settings: dict[str, str]
) -> None:
    _, other = files.authority.issue("client", files.folder / "another")
    assert refused(settings | {"REDIS_TLS_KEY_FILE": str(other)}) == (
        f"REDIS_TLS_KEY_FILE: the file {other} contains a key that does not belong to the certificate in"
        f" REDIS_TLS_CERT_FILE ({files.certificate})"
    )


def test_a_damaged_key_is_reported_with_its_file(files: Certificates, settings: dict[str, str], tmp_path: Path) -> None:
    key = tmp_path / "damaged.key"
    key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    assert refused(settings | {"REDIS_TLS_KEY_FILE": str(key)}) == (
        f"REDIS_TLS_KEY_FILE: the file {key} contains a key that cannot be used"
    )


def test_a_certificate_without_a_key_is_reported_with_the_missing_setting(
    files: Certificates, settings: dict[str, str]
) -> None:
    del settings["REDIS_TLS_KEY_FILE"]
    assert refused(settings) == (
        f"REDIS_TLS_CERT_FILE: the file {files.certificate} contains no private key in PEM;"
        " name the file with the key in REDIS_TLS_KEY_FILE"
    )


def test_an_encrypted_key_never_prompts_for_its_password(
    files: Certificates, settings: dict[str, str], tmp_path: Path
) -> None:
    certificate, key = files.authority.issue("client", tmp_path / "locked", password=SECRET)
    settings |= {"REDIS_TLS_CERT_FILE": str(certificate), "REDIS_TLS_KEY_FILE": str(key)}
    assert refused(settings) == (
        f"REDIS_TLS_KEY_FILE: the file {key} is encrypted; decrypt the key, or set its password as the option"
        " ssl_password of REDIS_URL"
    )
    del settings["REDIS_TLS"]
    assert refused(settings | {"REDIS_URL": "rediss://h?ssl_password=wrong"}) == (
        f"REDIS_TLS_KEY_FILE: the file {key} is encrypted, and the option ssl_password of REDIS_URL is not its password"
    )
    Connector(read(settings | {"REDIS_URL": f"rediss://h?ssl_password={SECRET}"}).redis)


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ("ssl_cert_reqs=perhaps", "the option 'ssl_cert_reqs' is not one of required, optional, none"),
        ("ssl_check_hostname=maybe", "the option 'ssl_check_hostname' is not one of true, 1, yes, false, 0, no"),
        ("ssl_min_version=TLSv1", "the option 'ssl_min_version' is not one of tlsv1.2, 771, tlsv1.3, 772"),
        (f"ssl_ciphers={SECRET}", "the option 'ssl_ciphers' names no cipher that OpenSSL knows"),
        (f"ssl_ca_data={SECRET}", "the option 'ssl_ca_data' contains no certificate in PEM"),
        ("ssl_ca_path=/no/such", "the option 'ssl_ca_path': the file /no/such is not a folder"),
        ("ssl_keyfile=/k", "the option 'ssl_keyfile' needs 'ssl_certfile'"),
    ],
)
def test_an_invalid_tls_option_is_named_in_the_error(option: str, error: str) -> None:
    assert refused({"REDIS_URL": f"rediss://:{SECRET}@h?{option}"}) == f"REDIS_URL: {error}"


@pytest.mark.parametrize(
    ("environment", "error"),
    [
        ({"REDIS_URL": "rediss://h", "REDIS_TLS": "false"}, "REDIS_TLS: false contradicts rediss:// in REDIS_URL"),
        (
            {"REDIS_URL": "redis://h", "REDIS_TLS": "true"},
            "REDIS_TLS: true contradicts redis:// in REDIS_URL; write rediss://",
        ),
        (
            {"REDIS_URL": "unix:///s", "REDIS_TLS": "true"},
            "REDIS_TLS: true contradicts unix:// in REDIS_URL; a socket of this machine has no TLS",
        ),
        (
            {"REDIS_TLS_CA_FILE": "/ca"},
            "REDIS_TLS_CA_FILE: needs REDIS_TLS=true, or rediss:// in REDIS_URL",
        ),
        (
            {"REDIS_TLS": "false", "REDIS_TLS_CERT_FILE": "/c"},
            "REDIS_TLS_CERT_FILE: needs REDIS_TLS=true, or rediss:// in REDIS_URL",
        ),
        ({"REDIS_TLS": "true", "REDIS_TLS_KEY_FILE": "/k"}, "REDIS_TLS_KEY_FILE: needs REDIS_TLS_CERT_FILE"),
        (
            {"REDIS_URL": "rediss://h?ssl_ca_certs=/a", "REDIS_TLS_CA_FILE": "/b"},
            "REDIS_TLS_CA_FILE: cannot be set together with the option 'ssl_ca_certs' of REDIS_URL",
        ),
        (
            {"REDIS_URL": "rediss://h?ssl_cert_reqs=none", "REDIS_TLS_CA_FILE": "/b"},
            "REDIS_TLS_CA_FILE: cannot be set together with ssl_cert_reqs=none in REDIS_URL,"
            " which trusts every certificate",
        ),
        ({"REDIS_TLS": "maybe"}, "REDIS_TLS: 'maybe' is not true or false"),
    ],
)  # fmt: skip
def test_contradicting_tls_settings_are_refused_with_both_names(environment: dict[str, str], error: str) -> None:
    assert refused(environment) == error


def test_the_displayed_address_shows_tls() -> None:
    assert read({"REDIS_TLS": "true", "REDIS_HOST": "h"}).redis.place == "rediss://h:6379"
    assert read({"REDIS_TLS": "false", "REDIS_HOST": "h"}).redis.place == "redis://h:6379"


def test_only_the_configured_ca_is_trusted(files: Certificates) -> None:
    context = Connector(read({"REDIS_TLS": "true", "REDIS_TLS_CA_FILE": str(files.ca)}).redis)()._connection_arguments()
    assert [each["subject"] for each in context["ssl"].get_ca_certs()] == [((("commonName", "ours"),),)]


def test_one_tls_context_is_reused_until_the_files_change(files: Certificates) -> None:
    connect = Connector(read({"REDIS_TLS": "true", "REDIS_TLS_CA_FILE": str(files.ca)}).redis)
    assert connect()._connection_arguments()["ssl"] is connect.companion()._connection_arguments()["ssl"]
