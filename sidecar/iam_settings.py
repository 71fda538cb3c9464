"""The settings of ElastiCache IAM: the cache, and the source of the AWS credentials.

The module is imported only with REDIS_IAM.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

_CONTAINER_HOST = "http://169.254.170.2"
"""The address from which ECS serves the task role's credentials."""
_LINK_LOCAL = ("169.254.170.2", "169.254.170.23", "fd00:ec2::23")
"""Addresses of ECS and EKS that serve credentials without TLS."""
_FULL_URI, _RELATIVE_URI = "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
_KEY_ID, _SECRET = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """AWS credentials, which `repr` does not show."""

    key_id: str = field(repr=False)
    secret: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CredentialsEndpoint:
    """The endpoint of the task role's credentials, and the authorization of requests to it."""

    url: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None


@dataclass(frozen=True, slots=True)
class Iam:
    """A login by ElastiCache IAM: the cache, and the source of the credentials."""

    cache: str
    region: str
    serverless: bool
    source: AwsKeys | CredentialsEndpoint


def iam_settings(cache: str, environment: Mapping[str, str], wrong: dict[str, str], *, serverless: bool) -> Iam | None:
    """The login that REDIS_IAM selects; None if there are no credentials.

    Args:
        cache: the value of REDIS_IAM.
        environment: the variables that are set.
        wrong: problems by the name of their variable; this function adds to it.
        serverless: the value of REDIS_IAM_SERVERLESS.
    """
    if "REDIS_USERNAME" not in environment:
        wrong.setdefault("REDIS_USERNAME", "missing, though REDIS_IAM is set")
    region = environment.get("AWS_REGION", "")
    if not region:
        wrong["AWS_REGION"] = "missing, though REDIS_IAM is set"
    elif not re.fullmatch(r"[a-z0-9-]{1,40}", region):
        wrong["AWS_REGION"] = "not the name of a region, such as eu-central-1"
    if (problem := _problem_of_cache(cache)) is not None:
        wrong.setdefault("REDIS_IAM", problem)
    source = _source(environment, wrong)
    return None if source is None else Iam(cache, region, serverless, source)


def _problem_of_cache(name: str) -> str | None:
    if name in ("true", "false", "yes", "no", "on", "off"):
        return "not a switch; set the name of the cache"
    if "." in name or ":" in name:
        return "not an address; set the name of the replication group or of the serverless cache"
    if name != name.lower():
        return "has capital letters; ElastiCache stores the names of caches in lower case"
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,49}", name):
        return "not the name of a cache: letters, digits and hyphens, at most 50, a letter first"
    return None


def _source(environment: Mapping[str, str], wrong: dict[str, str]) -> AwsKeys | CredentialsEndpoint | None:
    """The first source of credentials that is set, in AWS's own order: variables, then the task role."""
    key_id, secret = environment.get(_KEY_ID), environment.get(_SECRET)
    if key_id is not None and secret is not None:
        return AwsKeys(key_id, secret, environment.get("AWS_SESSION_TOKEN"))
    if key_id is not None or secret is not None:
        given, missing = (_KEY_ID, _SECRET) if secret is None else (_SECRET, _KEY_ID)
        wrong[missing] = f"missing, though {given} is set"
        return None
    token = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
    token_file = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    if (path := environment.get(_RELATIVE_URI)) is not None:
        if not re.fullmatch(r"/[\x21-\x7e]*", path):
            wrong[_RELATIVE_URI] = "not a path; ECS sets this variable, so do not set it yourself"
            return None
        return CredentialsEndpoint(_CONTAINER_HOST + path, token, token_file)
    if (url := environment.get(_FULL_URI)) is not None:
        if not _may_serve_credentials(url):
            wrong[_FULL_URI] = "neither https:// nor an address of this machine or of ECS"
            return None
        return CredentialsEndpoint(url, token, token_file)
    wrong.setdefault(
        "REDIS_IAM",
        f"no credentials of AWS: a task role on ECS sets {_RELATIVE_URI}; elsewhere set {_KEY_ID} and {_SECRET}",
    )
    return None


def _may_serve_credentials(url: str) -> bool:
    """Whether credentials may be fetched from this URL. AWS's libraries refuse the same URLs."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(host)
    if parts.scheme != "http":
        return False
    try:
        return host in _LINK_LOCAL or ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
