"""The layers of the code, which determine the allowed imports. `docs/architecture.md` shows the layers."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS: dict[str, tuple[set[str], ...]] = {
    "service": (
        {"address", "clock", "environment", "hosts", "market", "outage", "outgoing", "shutdown", "telemetry"},
        {"healthcheck", "prices"},
        {"portfolio"},
        {"database"},
        {"settings"},
        {"price_source", "work"},
        {"api"},
        {"commands"},
        {"serve"},
        {"__main__"},
    ),
    "sidecar": (
        {"client", "ecs_metadata", "history", "iam_settings", "protocol", "redis_host", "scripts"},
        {"login_settings", "server_kind", "tls_settings"},
        {"control_openapi", "settings"},
        {"healthcheck", "identity", "redis", "wrapper"},
        {"commands", "telemetry"},
        {"election"},
        {"control"},
        {"run"},
        {"__main__"},
    ),
}
"""Packages and top-level modules of each program by layer, lowest first; each may import only from lower layers."""
CLIENT_IMPORTS = ("aiohttp.", "runtime.clock.", "runtime.host_names.", "sidecar.client.")
"""Modules that the client library may import besides the standard library."""
MOST_PAIRS = 75
"""Maximum number of imports between packages and top-level modules of `service/`, each pair counted once."""
MOST_TOP_LEVEL = 14
"""Maximum number of modules directly in `service/`."""

Pair = tuple[str, str]


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names of the modules that a file imports, and of the names that it imports from modules."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(package: str) -> Iterator[tuple[Path, str]]:
    """Yield each file of a package with its unit: the subpackage or module directly in that package."""
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path, path.relative_to(ROOT / package).parts[0].removesuffix(".py")


def pairs(package: str) -> set[Pair]:
    """Return the pairs of units within a package in which the first unit imports the second."""
    return {
        (unit, name.split(".")[1])
        for path, unit in modules(package)
        for name in imported(path)
        if name.startswith(f"{package}.") and name.split(".")[1] != unit
    }


@pytest.mark.parametrize("package", LAYERS)
def test_every_unit_has_a_layer_and_imports_lower_layers_only(package: str) -> None:
    level = {name: level for level, names in enumerate(LAYERS[package]) for name in names}
    assert {unit for _, unit in modules(package)} - {"__init__"} == level.keys()
    assert [pair for pair in sorted(pairs(package)) if level[pair[1]] >= level[pair[0]]] == []


def test_the_service_stays_within_its_limits_of_imports_and_modules() -> None:
    assert len(pairs("service")) <= MOST_PAIRS
    assert len(list((ROOT / "service").glob("*.py"))) <= MOST_TOP_LEVEL


def test_the_client_library_depends_only_on_aiohttp() -> None:
    refused = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, _ in modules("sidecar/client")
        for name in imported(path)
        if name.split(".")[0] not in sys.stdlib_module_names and not f"{name}.".startswith(CLIENT_IMPORTS)
    ]
    assert refused == []


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("runtime", ("runtime.",)),
        ("sidecar", ("sidecar.", "runtime.")),
        ("service", ("service.", "runtime.", "sidecar.client.")),
    ],
)
def test_a_package_imports_only_the_allowed_packages_of_this_project(package: str, allowed: tuple[str, ...]) -> None:
    ours = ("runtime", "sidecar", "service", "ops", "tests", "bench")
    refused = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, _ in modules(package)
        for name in imported(path)
        if name.split(".")[0] in ours and not name.startswith(allowed)
    ]
    assert refused == []
