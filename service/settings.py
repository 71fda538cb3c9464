"""The settings: environment variables, read once and checked before anything starts."""

import ipaddress
import os
import re
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from runtime.addresses import Address
from runtime.escape import one_line
from service.address import DEFAULT, INTERNAL_DEFAULT
from service.database.database_url import checked_database_url
from service.hosts import may_be_server
from service.market.calendar import CALENDARS

DEFAULT_PORTS = {"http": 80, "https": 443}
PROJECT_URL = r"https://[a-z0-9-]+\.supabase\.(co|in)"

SHORTEST_SECRET = 32
"""Minimum length of a secret for HS256, in bytes."""
MAX_ORIGIN = 64
"""Limit of an origin in an error, in characters."""
LONGEST_INTERVAL = 3600
"""Maximum time between two ticks, in seconds, so that even the session of a half day has several ticks."""


class SettingsError(Exception):
    """Invalid settings. The text has a line for each invalid setting, and repeats no value that may be secret."""


def _database_url(secret: SecretStr) -> SecretStr:
    return SecretStr(checked_database_url(secret.get_secret_value()))


def _sidecar_url(text: str) -> str:
    parts = _split(text)
    if parts is None or parts.scheme != "http" or parts.path.strip("/"):
        raise ValueError("not of the form http://HOST:PORT")
    return f"http://{parts.netloc}"


def _public_url(text: str) -> str:
    """The address in a canonical form: lower-case host, no default port, no slash at the end."""
    parts = _split(text)
    if parts is None or parts.scheme not in DEFAULT_PORTS:
        raise ValueError("not of the form https://HOST")
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme == "http" and host not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError("not https://, which every address outside this machine needs")
    port = "" if parts.port in (None, DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path.rstrip('/')}"


def _project_url(text: str) -> str:
    """The address of a Supabase project, without the path of an API such as /auth/v1."""
    url = _public_url(text)
    if re.search(r"/(auth|functions|graphql|realtime|rest|storage)/v1(/|$)", url, re.IGNORECASE):
        raise ValueError("has the path of one of the project's APIs; set only the address before the path")
    if re.match(r"https://([^/]+\.)?supabase\.(co|com|in)(:|/|$)", url) and not re.fullmatch(PROJECT_URL, url):
        raise ValueError("not a project's address, which is https://PROJECT.supabase.co")
    return url


def _data_url(text: str) -> str:
    """The address of Alpaca's market data. Alpaca's other services, and wrong paths, answer 404 to every request."""
    url = _public_url(text)
    if re.search(r"/v\d+(beta\d+)?(/|$)", url):
        raise ValueError("has the path of a version; set only the address before the path")
    if re.match(r"https://(paper-|broker-|app\.)?(api\.)?alpaca\.markets(:|/|$)", url):
        raise ValueError("not the address of market data, which is https://data.alpaca.markets")
    return url


def _origins(text: str) -> frozenset[str]:
    """Origins that are separated by commas."""
    return frozenset(_origin(each.strip()) for each in text.split(","))


def _origin(text: str) -> str:
    """An origin as browsers send it. Another spelling would never match, so it is refused."""
    parts = _split(text)
    sent = None
    if parts is not None and parts.scheme in DEFAULT_PORTS and not parts.path.strip("/") and text.isascii():
        with suppress(ValueError):
            sent = _sent_by_browsers(parts)
    if sent is None:
        shown = repr(re.sub(r"(?s).*@|[?#].*", "", text))  # without any part that may be a login or a key
        raise ValueError(f"{one_line(shown, MAX_ORIGIN)} is not of the form https://HOST[:PORT]")
    if text != sent:
        raise ValueError(f"write it as browsers send it: {one_line(sent)}")
    return text


def _sent_by_browsers(parts: SplitResult) -> str:
    """The origin of an address.

    Raises:
        ValueError: the host is a malformed IP address, or has an escape or a scope.
    """
    host = parts.hostname or ""
    if "%" in host:
        raise ValueError("has a %")
    if ":" in host:
        host = f"[{ipaddress.IPv6Address(host)}]"
    elif re.search(r"(^|\.)[0-9]+\.?$", host):  # browsers treat a host that ends with a number as an address
        host = str(ipaddress.IPv4Address(host))
    port = "" if parts.port in (None, DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def _split(text: str) -> SplitResult | None:
    """The parts of an HTTP address; None for an unusable address, and for one with a query or a login."""
    try:
        parts = urlsplit(text)
        usable = parts.hostname and parts.port != 0 and may_be_server(parts.netloc)
    except ValueError:
        return None
    return parts if usable and parts.username is None and not set("?#") & set(text) else None


def _key(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", secret.get_secret_value()):
        raise ValueError("has characters that cannot be part of a key")
    return secret


def _shared_secret(secret: SecretStr) -> SecretStr:
    if re.match(r"eyJ[\w-]+\.eyJ|sb_(secret|publishable)_", secret.get_secret_value()):
        raise ValueError("an API key of the project; set the secret that signs the tokens instead")
    if len(secret.get_secret_value().encode()) < SHORTEST_SECRET:
        raise ValueError(f"shorter than {SHORTEST_SECRET} bytes, so it can be guessed")
    return secret


def _calendar(text: str) -> str:
    if text not in CALENDARS:
        raise ValueError(f"{reprlib.repr(text)} is not one of {', '.join(CALENDARS)}")
    return text


def _word(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _address(value: object) -> Address:
    return Address.parse(str(value))


Kind = TypeVar("Kind", bound=BaseModel)
Key = Annotated[SecretStr, AfterValidator(_key)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class AuthSettings(BaseModel):
    """Settings for authentication. Each is an environment variable of the same name; an empty value means not set."""

    model_config = ConfigDict(frozen=True, str_strip_whitespace=True)  # stripping makes pydantic refuse invalid UTF-8

    auth: Annotated[Literal["supabase", "off"], BeforeValidator(_word)] | None = None
    supabase_url: Annotated[str, AfterValidator(_project_url)] | None = None
    supabase_jwt_secret: Annotated[SecretStr, AfterValidator(_shared_secret)] | None = None

    @model_validator(mode="after")
    def _has_what_its_auth_needs(self) -> Self:
        if self.auth == "supabase" and self.supabase_url is None:
            raise ValueError("SUPABASE_URL: missing; AUTH=supabase needs it")
        return self


class Settings(AuthSettings):
    """All settings."""

    database_url: Annotated[SecretStr, AfterValidator(_database_url)]
    sidecar_url: Annotated[str, AfterValidator(_sidecar_url)] = "http://127.0.0.1:4040"
    api_bind: Annotated[Address, PlainValidator(_address)] = Address.parse(DEFAULT)
    internal_bind: Annotated[Address, PlainValidator(_address)] = Address.parse(INTERNAL_DEFAULT)
    cors_origins: Annotated[frozenset[str], BeforeValidator(_origins)] = frozenset()
    market_calendar: Annotated[str, AfterValidator(_calendar)] = "NYSE"
    tracker_interval: Annotated[Seconds, Field(ge=0.1, le=LONGEST_INTERVAL)] = 30.0
    price_source: Literal["simulated", "alpaca"] | None = None
    price_seed: int = 1
    apca_api_key_id: Key | None = None
    apca_api_secret_key: Key | None = None
    alpaca_feed: Literal["iex", "sip", "delayed_sip"] = "iex"
    alpaca_data_url: Annotated[str, AfterValidator(_data_url)] = "https://data.alpaca.markets"
    ecs_agent_uri: str | None = None
    log_format: Annotated[Literal["json", "text"], BeforeValidator(_word)] = "json"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_word)] = "info"
    shutdown_timeout: Seconds = 20.0

    @model_validator(mode="after")
    def _has_two_listeners(self) -> Self:
        if self.api_bind.overlaps(self.internal_bind):
            raise ValueError(f"INTERNAL_BIND: {self.internal_bind} overlaps with API_BIND ({self.api_bind})")
        return self

    @model_validator(mode="after")
    def _has_what_its_price_source_needs(self) -> Self:
        if self.price_source == "alpaca":
            for name in ("apca_api_key_id", "apca_api_secret_key"):
                if getattr(self, name) is None:
                    raise ValueError(f"{name.upper()}: missing; PRICE_SOURCE=alpaca needs it")
        return self


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read all settings from the environment.

    Raises:
        SettingsError: a value is missing or malformed.
    """
    return _read(Settings, environment)


def read_auth_settings() -> AuthSettings:
    """Read only the settings for authentication.

    Raises:
        SettingsError: a value is missing or malformed.
    """
    return _read(AuthSettings, os.environ)


def _read(kind: type[Kind], environment: Mapping[str, str]) -> Kind:
    values = {name: environment.get(name.upper(), "").strip() for name in kind.model_fields}
    try:
        return kind.model_validate({name: value for name, value in values.items() if value})
    except ValidationError as error:
        raise SettingsError("\n".join(map(_line, error.errors()))) from None


def _line(found: ErrorDetails) -> str:
    problem = found["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
    if not found["loc"]:  # an error about several settings; its text names the one to change
        return problem
    name = str(found["loc"][0]).upper()
    if found["type"] == "missing":
        return f"{name}: missing"
    # The value of a string setting may be secret, so the error does not repeat it.
    is_not = "not" if found["type"].startswith("string") else f"{reprlib.repr(found['input'])} is not"
    return f"{name}: {problem.replace('Input should be', is_not)}"
