"""The settings of the sidecar's login to Redis: a password, a file with a password, or ElastiCache IAM."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from sidecar.iam_settings import Iam


@dataclass(frozen=True, slots=True)
class LoginSettings:
    """A user and one kind of credentials; no user means Redis's default user."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    iam: "Iam | None" = None


def login_settings(environment: Mapping[str, str], wrong: dict[str, str], *, serverless: bool | None) -> LoginSettings:
    """The login in the environment, apart from the login in REDIS_URL.

    Args:
        environment: the variables that are set.
        wrong: problems by the name of their variable; this function adds to it.
        serverless: the value of REDIS_IAM_SERVERLESS; None if it is not set.
    """
    username, password = environment.get("REDIS_USERNAME"), environment.get("REDIS_PASSWORD")
    file, cache = environment.get("REDIS_PASSWORD_FILE"), environment.get("REDIS_IAM")
    url = urlsplit("" if "REDIS_URL" in wrong else environment.get("REDIS_URL", ""))
    url_password = "" if url.password is None else "a password in REDIS_URL"

    ways = [("REDIS_PASSWORD", password), ("REDIS_PASSWORD_FILE", file), ("REDIS_IAM", cache)]
    others = [url_password] if url_password else []
    for name, value in ways:
        if value is None:
            continue
        if others:
            wrong[name] = f"cannot be set together with {others[0]}"
        others.append(name)
    if username is not None and url.username:
        wrong["REDIS_USERNAME"] = "cannot be set together with a user in REDIS_URL"
    if file is not None and not file.startswith("/"):  # the value may be the password: the error does not repeat it
        wrong["REDIS_PASSWORD_FILE"] = "not an absolute path; set the path of a file"  # noqa: S105 - no password
    if username is not None and not others and "@" not in environment.get("REDIS_URL", ""):
        missing = "missing, though REDIS_USERNAME is set; REDIS_PASSWORD_FILE or REDIS_IAM can take its place"
        wrong["REDIS_PASSWORD"] = missing
    if cache is None and serverless is not None:
        wrong["REDIS_IAM_SERVERLESS"] = "needs REDIS_IAM, which is not set"
    iam = None
    if cache is not None:
        from sidecar.iam_settings import iam_settings

        iam = iam_settings(cache, environment, wrong, serverless=bool(serverless))
    return LoginSettings(username, password, file, iam)
