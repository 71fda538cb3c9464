"""The settings of TLS to Redis: REDIS_TLS and its files, or the options of a rediss:// URL."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

T = TypeVar("T")

_OPTION_OF = {
    "REDIS_TLS_CA_FILE": "ssl_ca_certs",
    "REDIS_TLS_CERT_FILE": "ssl_certfile",
    "REDIS_TLS_KEY_FILE": "ssl_keyfile",
}
"""Settings that name a file, and the option of REDIS_URL that names the same file."""
_VERIFY = {"required": True, "optional": True, "none": False}
_CHECK_NAME = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_VERSIONS = {"tlsv1.2": "TLSv1.2", "771": "TLSv1.2", "tlsv1.3": "TLSv1.3", "772": "TLSv1.3"}
"""Versions of TLS by their name, and by redis-py's number."""


@dataclass(frozen=True, slots=True)
class File:
    """A file, and the setting that names it: a variable, or an option of REDIS_URL."""

    setting: str
    path: str
    option: str | None = None

    def __str__(self) -> str:
        where = self.setting if self.option is None else f"the option {self.option} of {self.setting}"
        return f"{where} ({self.path})"

    def line(self, problem: str) -> str:
        """A line of a `SettingsError` about the file."""
        option = "" if self.option is None else f"the option {self.option!r}: "
        return f"{self.setting}: {option}the file {self.path} {problem}"


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The verification of the server, and the sidecar's own certificate.

    `asked_by` is the setting that turned TLS on.
    """

    asked_by: str = "REDIS_TLS"
    ca: File | None = None
    ca_folder: File | None = None
    ca_data: str | None = None
    certificate: File | None = None
    key: File | None = None
    key_password: str | None = field(default=None, repr=False)
    verify: bool = True
    check_name: bool = True
    ciphers: str | None = None
    min_version: str = "TLSv1.2"

    @property
    def key_file(self) -> File | None:
        """The file with the private key: by default, the certificate's file."""
        return self.key or self.certificate


def tls_settings(environment: Mapping[str, str], wrong: dict[str, str], *, asked: bool | None) -> TlsSettings | None:
    """The TLS settings in the environment; None without TLS.

    Args:
        environment: the variables that are set.
        wrong: problems by the name of their variable; this function adds to it.
        asked: the value of REDIS_TLS; None if it is not set.
    """
    if "REDIS_URL" in wrong or "REDIS_TLS" in wrong:
        return None
    url = urlsplit(environment.get("REDIS_URL", ""))
    if (problem := _contradiction(url.scheme, asked)) is not None:
        wrong["REDIS_TLS"] = problem
        return None
    given = {name: environment[name] for name in _OPTION_OF if name in environment}
    if not asked and url.scheme != "rediss":
        wrong |= dict.fromkeys(given, "needs REDIS_TLS=true, or rediss:// in REDIS_URL")
        return None
    options = {name: value for name, value in parse_qsl(url.query) if name.startswith("ssl_")}
    for name, path in given.items():
        if (problem := _problem_of_file(name, path, options)) is not None:
            wrong[name] = problem
    key_without_certificate = "REDIS_TLS_KEY_FILE" in given and "REDIS_TLS_CERT_FILE" not in given
    if key_without_certificate and "ssl_certfile" not in options:
        wrong.setdefault("REDIS_TLS_KEY_FILE", "needs REDIS_TLS_CERT_FILE")
    try:
        return _with_options(given, options, "REDIS_URL" if url.scheme == "rediss" else "REDIS_TLS")
    except ValueError as error:
        wrong["REDIS_URL"] = str(error)
        return None


def _contradiction(scheme: str, asked: bool | None) -> str | None:
    if asked is False and scheme == "rediss":
        return "false contradicts rediss:// in REDIS_URL"
    if asked and scheme == "redis":
        return "true contradicts redis:// in REDIS_URL; write rediss://"
    if asked and scheme == "unix":
        return "true contradicts unix:// in REDIS_URL; a socket of this machine has no TLS"
    return None


def _problem_of_file(name: str, path: str, options: Mapping[str, str]) -> str | None:
    if "-----BEGIN" in path:
        return "contains a certificate or a key; set the path of a file"
    if _OPTION_OF[name] in options:
        return f"cannot be set together with the option {_OPTION_OF[name]!r} of REDIS_URL"
    if name == "REDIS_TLS_CA_FILE" and options.get("ssl_cert_reqs") == "none":
        return "cannot be set together with ssl_cert_reqs=none in REDIS_URL, which trusts every certificate"
    return None


def _with_options(given: Mapping[str, str], options: Mapping[str, str], asked_by: str) -> TlsSettings:
    """The settings of the variables and of the URL's options together.

    Raises:
        ValueError: the value of an option cannot be used.
    """
    if "ssl_keyfile" in options and not ("ssl_certfile" in options or "REDIS_TLS_CERT_FILE" in given):
        raise ValueError("the option 'ssl_keyfile' needs 'ssl_certfile'")

    def file(name: str, option: str) -> File | None:
        if name in given:
            return File(name, given[name])
        return File("REDIS_URL", options[option], option) if option in options else None

    return TlsSettings(
        asked_by,
        ca=file("REDIS_TLS_CA_FILE", "ssl_ca_certs"),
        ca_folder=File("REDIS_URL", options["ssl_ca_path"], "ssl_ca_path") if "ssl_ca_path" in options else None,
        ca_data=options.get("ssl_ca_data"),
        certificate=file("REDIS_TLS_CERT_FILE", "ssl_certfile"),
        key=file("REDIS_TLS_KEY_FILE", "ssl_keyfile"),
        key_password=options.get("ssl_password"),
        verify=_choice("ssl_cert_reqs", options, _VERIFY, default=True),
        check_name=_choice("ssl_check_hostname", options, _CHECK_NAME, default=True),
        ciphers=options.get("ssl_ciphers"),
        min_version=_choice("ssl_min_version", options, _VERSIONS, default="TLSv1.2"),
    )


def _choice(option: str, options: Mapping[str, str], values: Mapping[str, T], *, default: T) -> T:
    if option not in options:
        return default
    if (text := options[option].lower()) not in values:
        raise ValueError(f"the option {option!r} is not one of {', '.join(values)}")
    return values[text]
