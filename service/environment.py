"""Environment variables that the API's libraries read: some have an effect, and the service ignores the others.

`runtime.environment` has the variables that both containers ignore. `docs/environment.md` lists all variables.
`ignore_switches` must run before the libraries are imported.
"""

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from runtime.environment import IGNORED as SHARED
from runtime.environment import remove_ignored
from runtime.escape import one_line

MAX_PATH = 200
"""Limit of a file's path in an error, in characters."""
IGNORED = SHARED | {
    # numpy does not start if the first of the next two variables lists a CPU feature that numpy needs, or if both are
    # set.
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "NPY_PROMOTION_STATE",
    "NUMPY_EXPERIMENTAL_DTYPE_API",
    "NUMPY_MADVISE_HUGEPAGE",
    "NUMPY_WARN_IF_NO_MEM_POLICY",
    "PYDANTIC_DISABLE_PLUGINS",
    "PYDANTIC_PRIVATE_ALLOW_UNHANDLED_SCHEMA_TYPES",
    # PyJWT's documentation build sets this variable; PyJWT then imports other types.
    "SPHINX_BUILD",
}
IGNORED_PREFIXES = (
    # All except `KEPT`, and except PGSSLMODE with one of `STRICT_MODES`. From the others, asyncpg would read a port, a
    # service file or target_session_attrs.
    "PG",
    "TQDM_",
)

CREDENTIAL_FILES = ("PGPASSFILE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCRL")
KEPT = frozenset({*CREDENTIAL_FILES, "PGUSER", "PGPASSWORD", "PGDATABASE"})
"""libpq's variables that supply what DATABASE_URL omits."""
STRICT_MODES = ("require", "verify-ca", "verify-full")
"""Values of PGSSLMODE that the service follows if DATABASE_URL has no sslmode: the values that require TLS."""


def ignore_switches(environment: MutableMapping[str, str] = os.environ) -> list[str]:
    """Remove the ignored variables from the environment, and return their names."""
    return remove_ignored(environment, also=_is_ignored)


def missing_certificates(environment: MutableMapping[str, str] = os.environ) -> Iterator[str]:
    """A line for each variable that names a file or folder of CA certificates that does not exist."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if (place := environment.get(name)) and not Path(place).exists():
            yield f"{name}: {one_line(place)} does not exist, so its CA certificates are not trusted"


def unusable_files(environment: MutableMapping[str, str] = os.environ) -> Iterator[str]:
    """A line for each variable that names an unreadable file for database connections."""
    for name in CREDENTIAL_FILES:
        if path := environment.get(name):
            try:
                with Path(path).open("rb"):
                    pass
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or type(error).__name__
                yield f"{name}: {one_line(repr(path), MAX_PATH)} cannot be read: {why}"


def _is_ignored(name: str, value: str) -> bool:
    if name == "PGSSLMODE":
        return value not in STRICT_MODES
    return name in IGNORED or (name.startswith(IGNORED_PREFIXES) and name not in KEPT)
