"""Variables of the environment that the API's libraries read: which count, and which are ignored.

What both containers ignore is in `runtime.environment`. `docs/environment.md` lists the variables, a test compares the
list with the libraries' code. `ignore_switches` has to run before the libraries are imported.
"""

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from runtime.environment import IGNORED as SHARED
from runtime.environment import remove
from runtime.escape import one_line

MAX_PATH = 200
"""Characters of a file's path."""
IGNORED = SHARED | {
    # numpy refuses to start over a feature that it cannot turn off.
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "NPY_PROMOTION_STATE",
    "NUMPY_EXPERIMENTAL_DTYPE_API",
    "NUMPY_MADVISE_HUGEPAGE",
    "NUMPY_WARN_IF_NO_MEM_POLICY",
    "PYDANTIC_DISABLE_PLUGINS",
    "PYDANTIC_PRIVATE_ALLOW_UNHANDLED_SCHEMA_TYPES",
    # Of PyJWT's documentation build: other names in the module.
    "SPHINX_BUILD",
}
IGNORED_PREFIXES = (
    "PG",  # except `KEPT`: asyncpg would take a port, a service, a kind of server from them
    "TQDM_",
)

CREDENTIAL_FILES = ("PGPASSFILE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCRL")
KEPT = frozenset({*CREDENTIAL_FILES, "PGUSER", "PGPASSWORD", "PGDATABASE"})
"""Variables of libpq that fill in what DATABASE_URL leaves out."""
STRICT_MODES = ("require", "verify-ca", "verify-full")
"""Values of PGSSLMODE that count where DATABASE_URL has no sslmode: those that demand TLS."""


def ignore_switches(environment: MutableMapping[str, str] = os.environ) -> list[str]:
    """Remove the variables that are ignored, for this process and its libraries; returns their names."""
    return remove(environment, also=_is_ignored)


def missing_certificates(environment: MutableMapping[str, str] = os.environ) -> Iterator[str]:
    """A line for each place of CA certificates that the environment names and that is not there."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if (place := environment.get(name)) and not Path(place).exists():
            yield f"{name}: there is nothing at {one_line(place)}: no certificate of an HTTPS server can be verified"


def unusable_files(environment: MutableMapping[str, str] = os.environ) -> Iterator[str]:
    """A line for each file of a database connection that the environment names and that cannot be read."""
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
