"""DATABASE_URL: the values that are refused at the start, and the TLS mode that the service adds.

asyncpg sends every unknown option to the server as a setting, and the server then refuses each connection. asyncpg
ignores a duplicate port or host, and a password file that it cannot read. So this module refuses an address for every
fault that can be found without the network.

A connection to another machine is encrypted unless the address says otherwise: `sslmode=require` is added. asyncpg's
own default, `prefer`, continues without TLS if the server, or a machine in between, offers none.
"""

import getpass
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from runtime.escape import one_line
from service.database.postgres_files import password_file_problem, tls_problem
from service.environment import STRICT_MODES
from service.hosts import is_local, may_be_server

TRANSACTION_POOLER = 6543
"""Supabase's port of the transaction pooler, which supports neither LISTEN nor prepared statements."""
SUPABASE = re.compile(r"\.supabase\.(co|com)\.?$", re.IGNORECASE)

PARTS = ("host", "port", "user", "password", "dbname", "database")
"""Options for values that can also stand before the `?`."""
FILES = ("passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword")
CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": ("TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1.2", "TLSv1.3"),
    "target_session_attrs": ("any", "primary", "read-write"),  # the other values find servers that accept no writes
    "gsslib": ("gssapi", "sspi"),
}
"""Options with a fixed set of working values."""
SERVER_SETTINGS = frozenset(
    {
        *("application_name", "options", "search_path", "timezone", "work_mem"),
        *("lock_timeout", "statement_timeout", "transaction_timeout"),
        *("idle_in_transaction_session_timeout", "idle_session_timeout", "client_connection_check_interval"),
        *("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout"),
    }
)
"""Server settings that an address may set. `options` sets any other setting: `options=-c%20NAME%3DVALUE`."""
KNOWN = frozenset({*PARTS, *FILES, *CHOICES, *SERVER_SETTINGS, "krbsrvname"})


@dataclass(frozen=True, slots=True)
class _Address:
    """The parts of an address."""

    hosts: tuple[tuple[str, str], ...]
    """Hosts, each with its port or an empty string. They come from the option `host` if none stands before the path."""
    before: Mapping[str, str]
    """Values before the `?`, by the name of the equivalent option. A missing value is an empty string."""
    options: Mapping[str, str]

    def value(self, name: str) -> str:
        """The value before the `?`, or else the option's value; empty if both are missing."""
        return self.before[name] or self.options.get(name, "")


def checked_database_url(url: str, environment: Mapping[str, str] = os.environ) -> str:
    """Check the value of DATABASE_URL; returns the address for asyncpg.

    Args:
        url: the value of DATABASE_URL.
        environment: libpq's variables, which supply what the address leaves out.

    Raises:
        ValueError: the address cannot work. The text gives the reason and contains no part of a password.
    """
    address = _parse(url)
    for name, value in address.options.items():
        if name not in KNOWN and "." not in name:  # a name with a dot is a setting of an extension
            shown = f"the option {name!r}" if _may_be_shown(name, address) else "an option"
            raise ValueError(f"has {shown}, which the service does not support; remove it")
        if name in CHOICES and value not in CHOICES[name]:
            raise ValueError(f"{name}: {one_line(repr(value), 40)} is not one of {', '.join(CHOICES[name])}")
    for name, value in address.before.items():
        if value and name in address.options:
            raise ValueError(f"gives the {name} twice, before the '?' and as an option; keep one")
    _check_ports(address)
    _check_login(address, environment)
    return _with_tls(url, address, environment)


def _parse(url: str) -> _Address:
    if re.match(r"[a-z]+://[^@/?#]*[\[\]<>][^@/?#]*@", url):
        raise ValueError("has brackets before the '@': fill in a placeholder, or write %5B, %5D, %3C, %3E")
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, strict_parsing=True) if parts.query else []
        whole = url.count("@") == parts.netloc.count("@") <= 1 and "#" not in url and "%00" not in url
    except ValueError:  # its text may contain a part of the password
        whole = False
    if not whole:
        raise ValueError("not a URL; are '/', '#', '?' and '@' in the password written as %2F, %23, %3F, %40?")
    if parts.scheme not in ("postgres", "postgresql"):
        raise ValueError("not a postgresql:// address")
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ValueError("gives an option twice; keep one")
    login, _, named = parts.netloc.rpartition("@")
    user, _, password = (unquote(piece) for piece in login.partition(":"))
    written = [unquote(host) for host in named.split(",")] if named else options.get("host", "").split(",")
    if written == [""]:
        raise ValueError("names no host")
    if not all(map(may_be_server, written)):
        raise ValueError("names an invalid host")
    hosts = tuple(map(_host_and_port, written))
    database = unquote(parts.path[1:])
    before = {"host": named, "port": named, "user": user, "password": password, "dbname": database}
    return _Address(hosts, before | {"database": database}, options)


def _host_and_port(written: str) -> tuple[str, str]:
    if written.startswith("/"):
        return written, ""
    if written.startswith("["):
        host, _, port = written[1:].partition("]")
        return host, port.removeprefix(":")
    host, _, port = written.partition(":")
    return host, port


def _check_ports(address: _Address) -> None:
    optional = address.options.get("port", "").split(",")
    if len(optional) not in (1, len(address.hosts)):
        raise ValueError("names a different number of ports than hosts")
    for port in filter(None, (*optional, *(port for _, port in address.hosts))):
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
            raise ValueError("names an invalid port")
        if int(port) == TRANSACTION_POOLER and any(SUPABASE.search(host) for host, _ in address.hosts):
            raise ValueError(f"port {port} is the transaction pooler; use the session pooler, port 5432")


def _check_login(address: _Address, environment: Mapping[str, str]) -> None:
    if not address.value("user") and not environment.get("PGUSER"):
        try:
            getpass.getuser()
        except (KeyError, OSError):  # the user has a number and no name, as in a container
            raise ValueError("names no user, and neither does PGUSER") from None
    has_password = address.value("password") or "PGPASSWORD" in environment
    if not has_password and (problem := password_file_problem(address.options, environment)):
        raise ValueError(problem)


def _with_tls(url: str, address: _Address, environment: Mapping[str, str]) -> str:
    """Check the TLS options and their files; returns the address, with `sslmode=require` added if necessary."""
    options = dict(address.options)
    weak = "sslmode" not in options and environment.get("PGSSLMODE") not in STRICT_MODES
    if weak and not all(is_local(host) for host, _ in address.hosts):
        options["sslmode"] = "require"
        base, _, query = url.partition("?")
        url = f"{base}?{query}&sslmode=require" if query else f"{base}?sslmode=require"
    only_sockets = all(host.startswith("/") for host, _ in address.hosts)
    mode = options.get("sslmode") or environment.get("PGSSLMODE") or ("disable" if only_sockets else "prefer")
    if options.get("sslnegotiation") == "direct" and mode not in STRICT_MODES:
        raise ValueError(f"sslnegotiation=direct needs sslmode=require or stricter, not {mode}")
    if options.get("ssl_min_protocol_version", "") > options.get("ssl_max_protocol_version", "TLSv1.3"):
        raise ValueError("ssl_min_protocol_version is later than ssl_max_protocol_version")
    if problem := tls_problem(mode, options, environment):
        raise ValueError(problem)
    return url


def _may_be_shown(name: str, address: _Address) -> bool:
    """Whether an error may show an option's name.

    After an unescaped `&`, a part of the password looks like an option.
    """
    secret = {"password", "sslpassword"} & address.options.keys()
    return not secret and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,39}", name) is not None
