"""The login of a connection, and the `Login` that the settings select if the password may change at run time."""

import asyncio
import random
import re
from typing import TYPE_CHECKING

from redis.exceptions import AuthenticationError, InvalidResponse, RedisError, ResponseError
from redis.exceptions import ConnectionError as Disconnected

from runtime.lookup import Lookups
from sidecar.redis.failures import KINDS, CredentialsError, note
from sidecar.settings import RedisAddress, SettingsError

if TYPE_CHECKING:
    from sidecar.redis.connection import RedisConnection
    from sidecar.redis.credentials import Login

_UNKNOWN_SELECT = re.compile("unknown command ['`]SELECT['`]")
"""Error of a Sentinel for SELECT, which is sent if the settings name a database."""


def login_of(address: RedisAddress, lookups: Lookups) -> "Login | None":
    """The login; None for a fixed password or no password. Only the module of the chosen login is imported.

    Raises:
        SettingsError: the file with the password cannot be used.
    """
    if address.password_file is not None:
        from sidecar.redis.credentials import PasswordFile

        login = PasswordFile(address.password_file, address.username)
        try:
            login.current()
        except CredentialsError as error:
            raise SettingsError(str(error)) from None
        return login
    if address.iam is not None:
        from sidecar.redis.iam import IamLogin

        return IamLogin(address.iam, address.username or "", lookups, uniform=random.uniform)
    return None


async def log_in(connection: "RedisConnection") -> None:
    """Connect and log in. Errors contain no part of a password.

    An error gets a note that names the server if the settings do not name it. The note of a cancellation, which
    becomes the cause of the caller's TimeoutError, also names the interrupted step.
    """
    try:
        await _log_in(connection)
    except asyncio.CancelledError as cancelled:
        note(cancelled, connection.named, connection.awaited())
        raise
    except Exception as error:
        note(error, connection.named)
        raise


async def _log_in(connection: "RedisConnection") -> None:
    try:
        await connection.connect()
    except AuthenticationError as error:
        raise AuthenticationError(f"{error}{connection.login_hint}") from None
    except (Disconnected, OSError):
        raise
    except Exception as error:
        if type(error) in KINDS or not connection.logging_in:
            raise
        if (unknown := _UNKNOWN_SELECT.match(str(error))) is not None:
            raise ResponseError(unknown.group()) from None
        kind = RedisError if isinstance(error, ResponseError) else InvalidResponse
        raise kind("the server refuses AUTH or SELECT") from None  # the server's words may repeat the password
