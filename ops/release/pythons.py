"""The Pythons of this machine on which a release is tested."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST, NEWEST = 11, 14
"""Minor versions of Python 3 to search for."""


def pythons() -> dict[str, Path]:
    """Return an interpreter for each minor version ({"3.12": ...}): the running one, or one from the path or pyenv."""
    found: dict[str, Path] = {}
    installed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in [
        Path(sys.executable),
        *(Path(path) for minor in range(OLDEST, NEWEST + 1) if (path := shutil.which(f"python3.{minor}"))),
        *(path for minor in range(OLDEST, NEWEST + 1) for path in sorted(installed.glob(f"3.{minor}.*/bin/python"))),
    ]:
        if (version := _version(candidate)) is not None:
            found.setdefault(version, candidate)
    return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1])))


def _version(python: Path) -> str | None:
    """Return the minor version of an interpreter; None if it does not work, like a pyenv shim without a version."""
    code = "import sys, venv, ensurepip; print('.'.join(map(str, sys.version_info[:2])))"
    said = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
    return said.stdout.strip() if said.returncode == 0 else None
