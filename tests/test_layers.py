"""Which package may import which: the layers of the code, lowest first. `docs/architecture.md` draws them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    {"address", "clock", "ending", "environment", "hosts", "market", "outage", "telemetry", "ways_out"},
    {"healthcheck", "prices"},
    {"portfolio"},
    {"database"},
    {"settings"},
    {"price_source", "work"},
    {"api"},
    {"commands"},
    {"serve"},
    {"__main__"},
)
"""Packages and top-level modules of `service/`; each may import those of lower layers only."""
MOST_PAIRS = 75
"""Imports between packages and top-level modules, each pair counted once."""
MOST_TOP_LEVEL = 14
"""Modules directly in `service/`."""
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

Pair = tuple[str, str]


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, and the names that it imports from them, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(package: str) -> Iterator[tuple[Path, str]]:
    """Each file of a top-level package, and the package or module directly below that it belongs to."""
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path, path.relative_to(ROOT / package).parts[0].removesuffix(".py")


def pairs() -> set[Pair]:
    """Who imports whom between the units of `service/`."""
    return {
        (unit, name.split(".")[1])
        for path, unit in modules("service")
        for name in imported(path)
        if name.startswith("service.") and name.split(".")[1] != unit
    }


def test_every_unit_of_the_service_has_a_layer_and_imports_lower_layers_only() -> None:
    assert {unit for _, unit in modules("service")} - {"__init__"} == LEVEL.keys()
    assert [pair for pair in sorted(pairs()) if LEVEL[pair[1]] >= LEVEL[pair[0]]] == []


def test_the_service_has_few_imports_between_its_units() -> None:
    assert len(pairs()) <= MOST_PAIRS
    assert len(list((ROOT / "service").glob("*.py"))) <= MOST_TOP_LEVEL


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("runtime", ("runtime.",)),
        ("sidecar/client", ("sidecar.client", "sidecar.clock", "sidecar.host")),
        ("sidecar", ("sidecar.", "runtime.")),
        ("service", ("service.", "runtime.", "sidecar.client.")),
    ],
)
def test_a_package_imports_only_what_it_may_of_the_others(package: str, allowed: tuple[str, ...]) -> None:
    ours = ("runtime", "sidecar", "service", "ops", "tests", "bench")
    refused = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, _ in modules(package)
        for name in imported(path)
        if name.split(".")[0] in ours and not name.startswith(allowed)
    ]
    assert refused == []
