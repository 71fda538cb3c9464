"""Why a Postgres server let no connection in, where a setting has to be changed before one can be made.

asyncpg and the network raise many types for this, some of which hold no text. What passes by itself, such as a server
that starts or has no connection left, is not here.
"""

import re
import ssl

import asyncpg

from runtime.escape import one_line

SHOWN = 300
"""Characters of a server's words."""
LASTING = ("28", "0A000", "22023", "3D000", "42501", "42704")
"""SQLSTATEs, or their first characters: login, TLS, rights, database, and settings that an address sends along."""
OF_POOLERS = re.compile(
    r"unsupported startup parameter|no such (database|user)|(tenant|user)\b.* not found", re.IGNORECASE
)
"""Words of poolers, which send one SQLSTATE with everything."""

POOLED = (
    "DATABASE_URL: a pooler gives each transaction another session (PgBouncer's transaction mode); "
    "the service needs a direct connection or a session pooler (Supabase: port 5432 of the pooler)"
)


class ServerRefused(ConnectionError):
    """The server refuses every connection until a setting is changed; the text names the setting."""


def refusal(error: Exception) -> ServerRefused | None:
    """What an error of an attempt to connect means; None if the next attempt may go better by itself."""
    match error:
        case asyncpg.PostgresError():
            words = one_line(error.args[0] if error.args else type(error).__name__, SHOWN)
            if not ((error.sqlstate or "").startswith(LASTING) or OF_POOLERS.search(words)):
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
            return ServerRefused(f"DATABASE_URL: {words}; other machines need TLS, unless it says sslmode=disable")
    return None
