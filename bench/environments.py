"""Virtual environments of other projects that the benchmarks measure.

Each project has a lock file with versions and hashes, and its own environment below `build/bench`. The environment is
created on first use, and again when the lock file changes.
"""

import hashlib
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "requirements" / "peers"
ENVIRONMENTS = ROOT / "build" / "bench" / "environments"


class Missing(Exception):
    """A project or a server of the comparison is not installed; the text is one line for the user."""


def environment(project: str) -> Path:
    """Return the folder with `python` and the other programs of the project's environment.

    Raises:
        Missing: pip cannot install the project.
    """
    lock = LOCKS / f"{project}.txt"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    folder = ENVIRONMENTS / f"{project}-{digest[:12]}"
    stamp = folder / "installed"
    if not stamp.exists():
        venv.create(folder, with_pip=True, clear=True)
        pip: list[str | Path] = [
            folder / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        pip += ["--require-hashes", "--requirement", lock]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            output = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise Missing(f"pip cannot install {project} from {lock.relative_to(ROOT)}: {output[-1]}")
        stamp.touch()
    return folder / "bin"


def version(project: str, of: str | None = None) -> str:
    """Return the locked version of the project, or of another package in its environment."""
    text = (LOCKS / f"{project}.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(of or project)}==([^ ]+)", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{project}.txt does not lock {of or project}")
    return found[1]
