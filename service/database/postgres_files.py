"""Files of a connection to Postgres: passwords, the CA's certificate and revocations, the client's certificate and key.

asyncpg reads the files at each connection, and its errors do not name them. This module opens each file once at the
start. Like asyncpg, it looks for a file in the address's option, in libpq's variable, and in the home folder.
"""

import ssl
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from runtime.escape import one_line

SHOWN = 200
"""Limit of a path in an error, in characters."""
VARIABLES = {
    "sslrootcert": "PGSSLROOTCERT",
    "sslcrl": "PGSSLCRL",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "passfile": "PGPASSFILE",
}
IN_HOME = {
    "sslrootcert": ".postgresql/root.crt",
    "sslcrl": ".postgresql/root.crl",
    "sslcert": ".postgresql/postgresql.crt",
    "sslkey": ".postgresql/postgresql.key",
    "passfile": ".pgpass",
}
WITH_CA = ("require", "verify-ca", "verify-full")
"""Modes that read a CA's certificate; `require` also works without one."""


class _Unusable(Exception):
    """A file cannot be used; the text names it."""


def tls_problem(mode: str, options: Mapping[str, str], environment: Mapping[str, str]) -> str | None:
    """Why a file prevents a connection with that `sslmode`; None if none does.

    Args:
        mode: one of libpq's modes.
        options: the address's options.
        environment: libpq's variables.
    """
    if mode == "disable":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if mode in WITH_CA:
            if (authority := _file("sslrootcert", options, environment)) is not None:
                _load("sslrootcert", authority, lambda: context.load_verify_locations(cafile=authority))
            elif mode != "require":
                return f"sslmode={mode} needs the CA's certificate: add sslrootcert=FILE"
            if (revoked := _file("sslcrl", options, environment)) is not None:
                _load("sslcrl", revoked, lambda: context.load_verify_locations(cafile=revoked))
        key = _file("sslkey", options, environment)
        if (certificate := _file("sslcert", options, environment)) is not None:
            password = options.get("sslpassword", "")
            _load("sslcert", certificate, lambda: context.load_cert_chain(certificate, key, lambda: password))
    except _Unusable as unusable:
        return str(unusable)
    return None


def password_file_problem(options: Mapping[str, str], environment: Mapping[str, str]) -> str | None:
    """Why the password file cannot be used; None if it can, or if there is none. asyncpg ignores an unusable file."""
    try:
        path = _file("passfile", options, environment)
    except _Unusable as unusable:
        return str(unusable)
    if path is not None and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"passfile: {_shown(path)} can be read by others; chmod 600"
    return None


def _file(name: str, options: Mapping[str, str], environment: Mapping[str, str]) -> Path | None:
    """The path of that file; None if no file is named and there is none in the home folder."""
    named = options.get(name) or environment.get(VARIABLES[name])
    try:
        path = Path(named) if named else Path.home() / IN_HOME[name]
    except RuntimeError:  # there is no home folder
        return None
    try:
        with path.open("rb"):
            return path
    except (OSError, ValueError) as error:
        if not named and isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return None
        why = getattr(error, "strerror", None) or type(error).__name__
        raise _Unusable(f"{name}: {_shown(path)} cannot be read: {why}") from None


def _load(name: str, path: Path, load: Callable[[], None]) -> None:
    try:
        load()
    except ssl.SSLError as error:
        why = (error.reason or "not PEM").lower().replace("_", " ")
        raise _Unusable(f"{name}: {_shown(path)} cannot be used: {why}") from None


def _shown(path: Path) -> str:
    return one_line(repr(str(path)), SHOWN)
