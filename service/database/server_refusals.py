"""Refusals of a Postgres server that last until a setting is changed, and refusals for too many connections.

asyncpg and the network raise many types of errors for a lasting refusal, some without a text. A temporary fault, such
as a server that is starting, is not a lasting refusal.
"""

import re
import ssl

import asyncpg

from runtime.escape import one_line

SHOWN = 300
"""Limit of a server's message in an error, in characters."""
LASTING_STATES = ("28", "0A000", "22023", "3D000", "42501", "42704")
"""SQLSTATEs, or their first characters, for login, TLS, rights, the database, and settings in an address."""
POOLER_REFUSALS = re.compile(
    r"unsupported startup parameter|no such (database|user)|(tenant|user)\b.* not found", re.IGNORECASE
)
"""Messages of poolers, which use one SQLSTATE for everything."""

TRANSACTION_POOLER_ERROR = (
    "DATABASE_URL: a pooler gives each transaction another session (PgBouncer's transaction mode); "
    "the service needs a direct connection or a session pooler (Supabase: port 5432 of the pooler)"
)

TOO_MANY_CONNECTIONS = "53300"
"""SQLSTATE of a Postgres server that allows no further connection."""
OVERLOAD = re.compile(
    r"too many (clients|connections)"
    r"|max(imum)?[ _-]?(number of )?(db |pool )?(client|connection)s?\b.*(reach|limit|exceed)"
    r"|max_\w*conn|clients reached|no more connections|connection (limit|slots)|connections? exceeded",
    re.IGNORECASE,
)
"""Messages of poolers that allow no further connection; each pooler has its own SQLSTATE."""
MORE_CONNECTIONS = "a task needs at least 3 connections and uses up to 11; raise the limit (docs/database.md)"


class ServerRefused(ConnectionError):
    """The server refuses every connection until a setting is changed; the text names the setting."""


def lasting_refusal(error: Exception) -> ServerRefused | None:
    """The lasting refusal behind an error of an attempt to connect; None if the next attempt may succeed."""
    match error:
        case asyncpg.PostgresError():
            words = one_line(error.args[0] if error.args else type(error).__name__, SHOWN)
            if not ((error.sqlstate or "").startswith(LASTING_STATES) or POOLER_REFUSALS.search(words)):
                return None
            wants_tls = words.endswith(("no encryption", "SSL off"))
            return ServerRefused(f"DATABASE_URL: {words}" + ("; sslmode=require asks for TLS" if wants_tls else ""))
        case ssl.SSLCertVerificationError():
            why = one_line(error.verify_message, SHOWN)
            return ServerRefused(f"DATABASE_URL: certificate verify failed: {why}; see sslmode and sslrootcert")
        case ssl.SSLError():
            why = (error.reason or "unknown").lower().replace("_", " ")
            return ServerRefused(f"DATABASE_URL: no TLS with the server: {why}")
        case ConnectionError() if "rejected SSL upgrade" in str(error):
            words = one_line(error, SHOWN)
            return ServerRefused(
                f"DATABASE_URL: {words}; other machines need TLS; to connect without TLS, add sslmode=disable"
            )
    return None


def is_overload(error: BaseException | None) -> bool:
    """Whether the server, or a pooler in front of it, refused a connection only because there are too many."""
    if not isinstance(error, asyncpg.PostgresError):
        return False
    return error.sqlstate == TOO_MANY_CONNECTIONS or OVERLOAD.search(str(error)) is not None
