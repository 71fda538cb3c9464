"""Logins that may change while the sidecar runs. redis-py asks for the login at each connect.

A `Login` answers at once: credentials that take time to fetch are fetched in the background. If no credentials are
available, it raises `CredentialsError`.
"""

import os
import stat
from abc import abstractmethod
from collections.abc import Callable

from redis.credentials import CredentialProvider

from sidecar.redis.failures import CredentialsError

LARGEST = 65_536
"""Limit of a file with a password, in bytes."""


class Login(CredentialProvider):
    """A user and a password that may change, for the login of each new connection."""

    hint = ""
    """Text to append to the error of a refused login: a fact about the password, or other possible causes."""

    def __init__(self) -> None:
        self.when_failed: Callable[[str], None] = _ignore
        """Called with the reason for each failed attempt to fetch credentials."""

    def connection_lifetime(self) -> float | None:
        """Seconds after which a connection must be replaced, before the server cuts it. None means no limit."""
        return None

    async def prepare(self) -> None:
        """Fetch the first credentials, or record why that fails, within a few seconds."""

    async def run(self) -> None:
        """Keep the credentials fresh until cancelled."""

    @abstractmethod
    def current(self) -> tuple[str] | tuple[str, str]:
        """The password, or the user and the password.

        Raises:
            CredentialsError: no credentials are available now.
        """

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The credentials, in the form that redis-py asks for."""
        return self.current()


class PasswordFile(Login):
    """A file that holds the password, read at each connect.

    Args:
        path: an absolute path.
        username: the user; None for Redis's default user.
    """

    hint = "; REDIS_PASSWORD_FILE has just been read"

    def __init__(self, path: str, username: str | None) -> None:
        super().__init__()
        self._path = path
        self._username = username

    def current(self) -> tuple[str] | tuple[str, str]:
        """The password in the file, without the line break at its end.

        Raises:
            CredentialsError: the file cannot be read, or contains no password.
        """
        password = secret_in(self._path, "REDIS_PASSWORD_FILE")
        return (password,) if self._username is None else (self._username, password)


def _ignore(_problem: str) -> None:
    """Do nothing."""


def secret_in(path: str, setting: str) -> str:
    """The only line of a file. Errors contain neither the path nor the content, since either may be the secret.

    Raises:
        CredentialsError: the file cannot be read, is not a regular file, is not UTF-8 text, is empty or too large, or
            has several lines.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe may block
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CredentialsError(f"{setting}: the file is not a regular file")
            content = os.read(descriptor, LARGEST + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno or 0) if isinstance(error, OSError) else "its path is malformed"
        raise CredentialsError(f"{setting}: the file cannot be read: {why}") from None
    if len(content) > LARGEST:
        raise CredentialsError(f"{setting}: the file is longer than {LARGEST} bytes")
    try:
        secret = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise CredentialsError(f"{setting}: the file is not UTF-8 text") from None
    if not secret:
        raise CredentialsError(f"{setting}: the file is empty")
    if "\n" in secret:
        raise CredentialsError(f"{setting}: the file has several lines; a password is one line")
    return secret
