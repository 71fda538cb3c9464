"""Makes the `Login` that the settings select, if the password may change at run time: a password file, or IAM."""

import random
from typing import TYPE_CHECKING

from runtime.lookup import Lookups
from sidecar.redis.failures import CredentialsError
from sidecar.settings import RedisAddress, SettingsError

if TYPE_CHECKING:
    from sidecar.redis.credentials import Login


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
