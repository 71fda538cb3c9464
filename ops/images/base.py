"""The base image. Without a registry it is built from Debian's packages once, and then reused."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from ops.images.engine import Engine, ImageError, call

SUITE = "trixie"
KEPT = f"localhost/python-from-debian:{SUITE}"
PACKAGES = "python3,python3-venv,python3-pip,python-is-python3,ca-certificates,tzdata"
DEFAULT = "python:3.13-slim-bookworm"
"""The base image that the Dockerfiles name."""


def base_image(engine: Engine, environment: Mapping[str, str], say: Callable[[str], None]) -> str:
    """Return the base image: PYTHON_IMAGE, else the base image that an earlier run built, else the Dockerfiles' image.

    If the Dockerfiles' image cannot be pulled, a base image is built from Debian's packages.

    Raises:
        ImageError: PYTHON_IMAGE cannot be pulled, or no base can be made.
    """
    wanted = environment.get("PYTHON_IMAGE")
    if wanted is not None:
        if engine.exists(wanted) or engine.pull(wanted):
            return wanted
        raise ImageError(f"PYTHON_IMAGE: {engine.name} cannot pull {wanted}")
    if engine.exists(KEPT):
        return KEPT
    if engine.exists(DEFAULT) or engine.pull(DEFAULT):
        return DEFAULT
    say(f"{DEFAULT} cannot be pulled: building a base image from Debian's packages, to be kept as {KEPT}")
    _make(engine)
    return KEPT


def _make(engine: Engine) -> None:
    if shutil.which("debootstrap") is None:
        raise ImageError("debootstrap is not installed; Debian has it in the package debootstrap")
    if os.geteuid() != 0:
        raise ImageError("debootstrap needs root; run as root, or set PYTHON_IMAGE to a local image")
    with tempfile.TemporaryDirectory(prefix="python-base-") as name:
        root = Path(name) / "root"
        mirror = debian_mirror()
        call(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root), *mirror])
        shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
        root.chmod(0o755)
        engine.add_root(root, KEPT)


def debian_mirror() -> list[str]:
    """Return the mirror in apt's `debian.sources`; empty if it names none, and debootstrap then uses its default."""
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    lines = sources.read_text().splitlines() if sources.exists() else []
    return [line.split()[1] for line in lines if line.startswith("URIs: ")][:1]
