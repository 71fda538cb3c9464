import subprocess
from pathlib import Path

import pytest

from tests.sidecar.wrapper.conftest import sidecars
from tests.support.processes import ROOT

__all__ = ["sidecars"]  # a fixture


@pytest.fixture(scope="session")
def go_worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go example, compiled."""
    target = tmp_path_factory.mktemp("go") / "worker"
    subprocess.run(["go", "build", "-o", target, "."], cwd=ROOT / "examples" / "go", check=True)
    return target


@pytest.fixture(params=["node", "go"])
def worker(request: pytest.FixtureRequest) -> list[str]:
    """The command of an example that works while it leads."""
    if request.param == "node":
        return ["node", str(ROOT / "examples" / "node" / "worker.mjs")]
    return [str(request.getfixturevalue("go_worker"))]
