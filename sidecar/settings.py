"""The environment, read once and checked before anything starts."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from runtime.addresses import Address, in_url
from runtime.host_names import may_be_host
from sidecar.login_settings import login_settings
from sidecar.protocol import Timings, UnsafeTimings
from sidecar.redis_host import checked_host, checked_redis_host
from sidecar.server_kind import MAX_CALL, Sentinels, ServerKind, read_kind

if TYPE_CHECKING:
    from sidecar.iam_settings import Iam
    from sidecar.tls_settings import TlsSettings

T = TypeVar("T")

_URL_OPTIONS = (
    "db", "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname",
    "ssl_ciphers", "ssl_keyfile", "ssl_min_version", "ssl_password",
)  # fmt: skip
"""Options that a Redis URL may have.

Other options of redis-py would change behaviour that the sidecar relies on, or stop the sidecar.
"""


CONTROL = "127.0.0.1:4040"
"""Default address of the control listener (CONTROL_BIND)."""


class SettingsError(Exception):
    """Invalid settings; the text has one line for each setting, which begins with the setting's name."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The address of Redis (a URL, or else a host and a port) and the login. `place` is for people, without secrets."""

    place: str
    url: str | None = field(repr=False)
    host: str
    port: int
    username: str | None
    password: str | None = field(repr=False)
    password_file: str | None = None
    iam: "Iam | None" = None
    tls: "TlsSettings | None" = None


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. `keys` has the key of each lease, by the lease's name."""

    redis: RedisAddress
    kind: ServerKind
    keys: dict[str, str]
    timings: Timings
    failover_guard: bool
    min_replicas: int
    require_client: bool
    campaign: bool
    instance_id: str | None
    metadata_uri: str | None
    control: Address
    metrics: Address
    log_format: str
    log_level: str


def read(environment: Mapping[str, str]) -> Settings:
    """The settings in `environment`; an empty variable counts as not set.

    Raises:
        SettingsError: values are missing, malformed or unsafe; the text names each of them.
    """
    env = {name: value.strip() for name, value in environment.items() if value.strip()}
    wrong: dict[str, str] = {}

    def take(name: str, parse: Callable[[str], T], default: T) -> T:
        try:
            return parse(env[name]) if name in env else default
        except ValueError as error:
            wrong[name] = str(error)
            return default

    ttl = take("LEASE_TTL", _seconds, 30.0)
    timings = {
        "ttl": ttl,
        "heartbeat": take("HEARTBEAT_INTERVAL", _seconds, 10.0),
        "grant_ttl": take("GRANT_TTL", _seconds, 5.0),
        "call_limit": take("REDIS_TIMEOUT", _seconds, ttl / 15),
    }
    checked = Timings()
    if not wrong:  # otherwise the default of an invalid timing would be compared with the valid timings
        try:
            checked = Timings(**timings)
        except UnsafeTimings as error:
            wrong |= error.wrong

    host, port = take("REDIS_HOST", checked_redis_host, "localhost"), take("REDIS_PORT", _port, 6379)
    place = take("REDIS_URL", _place, None)
    login = login_settings(env, wrong, serverless=take("REDIS_IAM_SERVERLESS", _switch, None))
    asked_tls, tls = take("REDIS_TLS", _switch, None), None
    if _mentions_tls(env):
        from sidecar.tls_settings import tls_settings

        tls = tls_settings(env, wrong, asked=asked_tls)
    if login.iam is not None and tls is None and not wrong.keys() & {"REDIS_URL", "REDIS_TLS"}:
        wrong["REDIS_IAM"] = "needs REDIS_TLS=true, or rediss:// in REDIS_URL: ElastiCache requires TLS for IAM logins"
    redis = RedisAddress(
        place=place or f"{'redis' if tls is None else 'rediss'}://{Address(host, port)}",
        url=env.get("REDIS_URL"),
        host=host,
        port=port,
        username=login.username,
        password=login.password,
        password_file=login.password_file,
        iam=login.iam,
        tls=tls,
    )
    names = take("LEASES", _names, ["background_services", "daily_scheduler"])
    keys = take("LEASE_KEY", lambda pattern: _keys(names, pattern), _keys(names, "portfolio:{name}:leader"))
    kind, wrong_kind = read_kind(env, keys.values(), cluster=take("REDIS_CLUSTER", _switch, default=False))
    wrong |= {name: why for name, why in wrong_kind.items() if name not in wrong}
    if isinstance(kind, Sentinels):
        if not wrong and checked.call_limit > checked.ttl * MAX_CALL:
            wrong["REDIS_TIMEOUT"] = (
                f"{checked.call_limit:g} s is above a twelfth of LEASE_TTL ({checked.ttl:g} s), the limit with"
                " REDIS_SENTINELS"
            )
        redis = replace(redis, place=str(kind))
    settings = Settings(
        redis=redis,
        kind=kind,
        keys=keys,
        timings=checked,
        failover_guard=take("FAILOVER_GUARD", _switch, default=True),
        min_replicas=take("MIN_REPLICAS", _count, 0),
        require_client=take("REQUIRE_CLIENT", _switch, default=True),
        campaign=take("CAMPAIGN", _switch, default=True),
        instance_id=take("INSTANCE_ID", checked_instance_id, None),
        metadata_uri=take("ECS_CONTAINER_METADATA_URI_V4", _metadata_uri, None),
        control=take("CONTROL_BIND", _loopback, _loopback(CONTROL)),
        metrics=take("METRICS_BIND", _address, Address("0.0.0.0", 9102)),  # noqa: S104 - scraped from outside the task
        log_format=take("LOG_FORMAT", _one_of("json", "text"), "json"),
        log_level=take("LOG_LEVEL", _level, "INFO"),
    )
    if "REDIS_URL" in env:
        for name in ("REDIS_HOST", "REDIS_PORT"):
            if name in env:
                wrong[name] = "cannot be set together with REDIS_URL"
    if wrong:
        raise SettingsError("\n".join(f"{name}: {why}" for name, why in wrong.items()))
    return settings


def _mentions_tls(env: Mapping[str, str]) -> bool:
    """Whether any setting concerns TLS; otherwise no TLS module is imported."""
    by_url = env.get("REDIS_URL", "").lower().startswith("rediss:")
    return by_url or any(name.startswith("REDIS_TLS") for name in env)


def control_address(environment: Mapping[str, str]) -> Address:
    """The address of the control listener, which is a loopback address.

    Raises:
        SettingsError: CONTROL_BIND is malformed, or reachable from outside the task.
    """
    try:
        return _loopback(environment.get("CONTROL_BIND", "").strip() or CONTROL)
    except ValueError as error:
        raise SettingsError(f"CONTROL_BIND: {error}") from None


def checked_instance_id(text: str) -> str:
    """The text, if it is a valid instance id.

    Raises:
        ValueError: the text is not a valid instance id; the error says why.
    """
    if not re.fullmatch(r"[\x21-\x7e]{1,128}", text) or text.upper() == "DISABLED":
        raise ValueError(f"{text[:140]!r} is not 1 to 128 printable characters without spaces, or is the word DISABLED")
    if "$" in text:
        raise ValueError(f"{text!r} contains a variable that was not replaced: every task would have the same id")
    return text


def _place(url: str) -> str:
    """The place that a Redis URL names, without the URL's secrets.

    Raises:
        ValueError: the URL is invalid, or has options that are not allowed; the text repeats no part of a password.
    """
    if url[0] in "'\"":
        raise ValueError("begins with a quote, which is part of the value")
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{_port(str(parts.port))}"
    except ValueError:
        raise ValueError("not an address") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("does not begin with redis://, rediss:// or unix://")
    if parts.fragment or "#" in url or "@" in parts.query:  # a password was split at such a character
        raise ValueError("'#', '/', '?' and '@' in a password have to be written as %23, %2F, %3F and %40")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "db" and (not re.fullmatch(r"[0-9]{1,9}", value) or parts.path.strip("/").isdigit()):
            raise ValueError("the option 'db' is not the number of a database, or the path also names one")
        if name not in _URL_OPTIONS:
            raise ValueError(f"the option {name[:40]!r} is not one of {', '.join(_URL_OPTIONS)}")
        if name.startswith("ssl_") and parts.scheme != "rediss":
            raise ValueError(f"the option {name!r} needs rediss://")
    if parts.scheme == "unix":
        if parts.hostname or not parts.path:
            raise ValueError("not of the form unix:///PATH")
        return f"unix://{parts.path}"
    if not parts.hostname:
        raise ValueError("does not name a host")
    try:
        checked_host(unquote(parts.hostname))  # as redis-py reads it
    except ValueError as error:
        raise ValueError(f"the host: {error}") from None
    if not re.fullmatch(r"/?[0-9]{0,9}", parts.path):
        raise ValueError("what follows the host is not the number of a database")
    if parts.username and parts.password is None:
        raise ValueError(
            "names a user without a password; a password alone is written redis://:PASSWORD@HOST,"
            " and a user alone is set in REDIS_USERNAME"
        )
    return f"{parts.scheme}://{in_url(parts.hostname)}{port}"


def _metadata_uri(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.port != 0 and may_be_host(parts.hostname or "")
    except ValueError:
        usable = False
    if not usable or "@" in text or parts.query or parts.fragment:
        raise ValueError("not a URL of the form http://ADDRESS/PATH; ECS sets this variable, so do not set it yourself")
    return text


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
            raise ValueError(f"{name!r} is not a name of letters, digits, '_', '.' and '-'")
        if name in (".", ".."):  # URL libraries resolve the dots in `/is-leader/..`
            raise ValueError(f"{name!r} means a folder in a URL; a client could not ask for this lease")
    if len(set(names)) < len(names):
        raise ValueError("a name is listed twice")
    return names


def _keys(names: list[str], pattern: str) -> dict[str, str]:
    if len(names) > 1 and "{name}" not in pattern:
        raise ValueError("without {name}, all leases would have the same key")
    keys = {name: pattern.replace("{name}", name) for name in names}
    for key in keys.values():
        if not key.isprintable() or " " in key:
            raise ValueError(f"{key!r} contains a space, or a character that is not printable")
        if not re.fullmatch(r"[^{}]*(\{[^{}]+\}[^{}]*)?", key):
            raise ValueError(f"{key!r} contains braces that are not one hash tag, as in {{portfolio}}:{{name}}:leader")
        for prefix in ("fence:", "history:"):
            if key.startswith(prefix):
                raise ValueError(f"{prefix!r} is a prefix that is reserved for a lease's fence and history")
        if any(other != key and other.startswith(key) for other in keys.values()):
            raise ValueError(f"{key!r} is the beginning of another lease's key; a watch could not distinguish them")
    return keys


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number of seconds") from None
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{text!r} is not a number of seconds above 0")
    return value


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise ValueError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _port(text: str) -> int:
    if "://" in text:
        raise ValueError("a URL, as Docker's links and Kubernetes set it; put only the number of the port there")
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ValueError(f"{text!r} is not a port")
    return int(text)


def _address(text: str) -> Address:
    host, colon, _ = text.rpartition(":")
    if not colon or "/" in text:
        raise ValueError(f"{text!r} is not ADDRESS:PORT")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{text!r} is not ADDRESS:PORT; an IPv6 address needs brackets: [::1]:4040")
    return Address.parse(text)


def _loopback(text: str) -> Address:
    address = _address(text)
    if not ip_address(address.host).is_loopback:
        raise ValueError(f"{address.host} is not a loopback address; anybody who reaches it can resign leases")
    return address


def _switch(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in values:
        raise ValueError(f"{text!r} is not true or false")
    return values[text.lower()]


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(f"{text!r} is not one of {', '.join(allowed)}")
        return text.lower()

    return parse


def _level(text: str) -> str:
    return _one_of("debug", "info", "warning", "error")(text).upper()
