"""Environment variables that are meant for other programs neither stop nor change the API."""

import importlib.metadata
import re
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.environment import CREDENTIAL_FILES, IGNORED, KEPT, ignore_switches
from tests.support.processes import ROOT, Service, Sidecar, command_of
from tests.support.waiting import eventually

DOCUMENT = ROOT / "docs" / "environment.md"
LIBRARIES = (
    *("aiohappyeyeballs", "aiohttp", "aiohttp_sse", "aiosignal", "asyncpg", "cryptography", "frozenlist", "holidays"),
    *("idna", "jwt", "multidict", "numpy", "prometheus_client", "propcache", "pydantic", "pydantic_core"),
    *("pythonjsonlogger", "tqdm", "uvloop", "yarl"),
)
READ = re.compile(r"""(?:environ(?:\.get|\.pop)?\s*[\[(]|getenv\s*\()\s*['"]([A-Za-z][A-Za-z0-9_]+)['"]""")
NOT_IN_THE_PROCESS = re.compile(
    r"/(tests|_testbase|testing|f2py|distutils|django|contrib|v1|_core/include|autonotebook|cluster|conftest)"
)
IRRELEVANT = {
    *("PROCESSOR_ARCHITECTURE", "PROCESSOR_ARCHITEW6432"),  # only on Windows
    *(
        "FOO",
        "HTTP_ACCEPT",
        "HTTP_ACCEPT_ENCODING",
        "PATH_INFO",
        "QUERY_STRING",
        "REQUEST_METHOD",
    ),  # an example in a docstring, and keys of a WSGI request
}

MEANT_FOR_OTHERS = {
    **dict.fromkeys(sorted(IGNORED), "1"),
    "NPY_DISABLE_CPU_FEATURES": "nonsense SSE SSE2",
    "NPY_ENABLE_CPU_FEATURES": "nonsense",
    "NUMPY_MADVISE_HUGEPAGE": "nonsense",
    "NPY_PROMOTION_STATE": "nonsense",
    "PYTHONWARNINGS": "error",
    "SSLKEYLOGFILE": "/nowhere/keys",
    "UV_THREADPOOL_SIZE": "nonsense",
    "PGHOST": "elsewhere.invalid",
    "PGPORT": "1,2,nonsense",
    "PGSERVICE": "another",
    "PGSERVICEFILE": "/nowhere/service",
    "PGSSLMODE": "nonsense",
    "PGSSLNEGOTIATION": "nonsense",
    "PGSSLMINPROTOCOLVERSION": "nonsense",
    "PGSSLMAXPROTOCOLVERSION": "nonsense",
    "PGTARGETSESSIONATTRS": "standby",
    "PGKRBSRVNAME": "nonsense",
    "PGGSSLIB": "nonsense",
    "PGOPTIONS": "-c default_transaction_read_only=on",
    "PGAPPNAME": "another",
    "PROMETHEUS_MULTIPROC_DIR": "/nowhere/metrics",
    "prometheus_multiproc_dir": "/nowhere/metrics",
    "PROMETHEUS_DISABLE_CREATED_SERIES": "nonsense",
    "PROMETHEUS_LEGACY_NAME_VALIDATION": "nonsense",
    "TQDM_MININTERVAL": "nonsense",
    "TQDM_DISABLE": "1",
    "TQDM_SLACK_TOKEN": "x",
}
HARMLESS = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://nonsense",
    "http_proxy": "nonsense",
    "NETRC": "/nowhere/netrc",
    "LANGUAGE": "th",
    "LC_ALL": "tr_TR.UTF-8",
    "TZ": "Nowhere/Nonsense",
    "OPENSSL_CONF": "/nowhere/openssl.cnf",
    "OPENBLAS_NUM_THREADS": "nonsense",
    "OMP_NUM_THREADS": "nonsense",
    "COLUMNS": "nonsense",
    "RES_OPTIONS": "nonsense",
}


async def has_ticked(service: Service) -> bool:
    status = await service.get_internal("/background/status")
    return status["jobs"]["tracker"]["last_run"] is not None


async def test_the_api_works_with_every_variable_that_is_meant_for_another_program(
    new_sidecar: Callable[..., Sidecar], new_service: Callable[..., Service], stack: AsyncExitStack
) -> None:
    sidecar = await stack.enter_async_context(new_sidecar("one"))
    service = await stack.enter_async_context(new_service("one", sidecar.url, **MEANT_FOR_OTHERS, **HARMLESS))
    await eventually(lambda: has_ticked(service))
    service.send()
    assert await service.end() == 0
    assert not [line for line in service.lines() if line["level"] not in ("INFO", "WARNING")]
    (warning,) = [message for message in service.messages() if "ignored environment variables" in message]
    assert set(warning.rpartition(": ")[2].split()) == set(MEANT_FOR_OTHERS)


@pytest.mark.parametrize("command", ["migrate", "sample"])
async def test_a_command_works_with_every_variable_that_is_meant_for_another_program(
    samples_url: str, tmp_path: Path, stack: AsyncExitStack, command: str
) -> None:
    settings = {"DATABASE_URL": samples_url, "AUTH": "off", "PRICE_SOURCE": "simulated", **MEANT_FOR_OTHERS, **HARMLESS}
    process = await stack.enter_async_context(command_of("service", tmp_path / "log", command, **settings))
    assert await process.end() == 0
    assert "Traceback" not in process.output


@pytest.mark.parametrize("name", CREDENTIAL_FILES)
async def test_an_unreadable_file_that_the_environment_names_is_refused(
    samples_url: str, tmp_path: Path, stack: AsyncExitStack, name: str
) -> None:
    settings = {"DATABASE_URL": samples_url, "AUTH": "off", "PRICE_SOURCE": "simulated", name: "/nowhere/file"}
    process = await stack.enter_async_context(command_of("service", tmp_path / "log", **settings))
    assert await process.end() == 2
    assert process.output == f"{name}: '/nowhere/file' cannot be read: No such file or directory\n"


async def test_missing_certificate_files_are_one_warning(
    samples_url: str, tmp_path: Path, stack: AsyncExitStack
) -> None:
    settings = {"DATABASE_URL": samples_url, "AUTH": "off", "PRICE_SOURCE": "simulated", "SSL_CERT_FILE": "/nowhere/ca"}
    process = await stack.enter_async_context(command_of("service", tmp_path / "log", "migrate", **settings))
    assert await process.end() == 0
    assert process.output.count("SSL_CERT_FILE: /nowhere/ca does not exist") == 1


@pytest.mark.parametrize(
    ("mode", "ignored"), [("disable", True), ("allow", True), ("prefer", True), ("verify-full", False)]
)
def test_a_variable_can_require_tls_to_the_database_but_not_turn_it_off(mode: str, ignored: bool) -> None:
    environment = {"PGSSLMODE": mode, "PGPASSWORD": "x", "PATH": "/bin"}
    assert ignore_switches(environment) == (["PGSSLMODE"] if ignored else [])
    assert {"PGPASSWORD", "PATH"} <= environment.keys()


def documented(section: str = "API") -> str:
    """The part of the document under this heading."""
    return DOCUMENT.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]


def read_by(libraries: Sequence[str]) -> set[str]:
    """Names of variables that libraries read."""
    site = Path(str(importlib.metadata.distribution("aiohttp").locate_file("")))
    files = [path for library in libraries for path in (site / library).rglob("*.py")]
    return {
        name
        for path in files
        if not NOT_IN_THE_PROCESS.search(str(path))
        for name in READ.findall(path.read_text(errors="replace"))
    }


def test_every_variable_that_a_library_reads_is_in_the_document() -> None:
    """Fails if a new version of a library reads a new variable. Decide whether it may take effect, and document it."""
    read = read_by(LIBRARIES)
    assert {"PGHOST", "AIOHTTP_NO_EXTENSIONS", "SSLKEYLOGFILE", "PROMETHEUS_MULTIPROC_DIR"} <= read
    families = ("PG", "PROMETHEUS_", "prometheus_", "TQDM_", "PYTHON")
    own = {name for name in read - IRRELEVANT if not name.startswith(families)}
    assert [name for name in sorted(own) if f"`{name}`" not in documented()] == []


def test_every_ignored_or_kept_variable_is_in_the_document() -> None:
    assert [name for name in sorted(IGNORED | KEPT) if f"`{name}`" not in documented()] == []
