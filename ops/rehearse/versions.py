"""The versions of the service that a rehearsal deploys: images, and the task definition that belongs to them."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ops.images.base import base_image
from ops.images.engine import Engine, ImageError
from ops.local.definition import TaskDefinition, read
from ops.local.programs import spelled_out
from ops.rehearse.programs import RehearsalError

ROOT = Path(__file__).resolve().parents[2]
IMAGES = {"api": ("Dockerfile.api", "portfolio-api"), "sidecar": ("Dockerfile.sidecar", "lease-sidecar")}
"""Dockerfile and image name of each container."""

NEXT = "FROM {image}\nENV REHEARSED_VERSION=next\n"
BROKEN = "FROM {image}\nUSER 0\nRUN rm -r /app/service\nUSER 10001:10001\n"
"""Image of a version whose program is missing: it exits at once and never becomes healthy."""
SILENT = """FROM {image}
USER 0
RUN rm -r /app/service && mkdir /app/service && echo 'import time; time.sleep(1e6)' > /app/service/__main__.py
USER 10001:10001
"""
"""Image of a version that runs, answers nothing, and never becomes healthy."""
DERIVED = {"next": (("api", "sidecar"), NEXT), "broken": (("api",), BROKEN), "silent": (("api",), SILENT)}
"""Versions derived from today's images: the containers that differ, and how their images are built."""


@dataclass(frozen=True)
class Version:
    """A version that can be deployed: the image of each container, and the task definition."""

    name: str
    images: Mapping[str, str]
    definition: TaskDefinition


def build(engine: Engine, environment: Mapping[str, str], old: str | None, say: Callable[[str], None]) -> list[Version]:
    """Return today's version and the versions derived from it. With a commit `old`, the commit's version comes first.

    Raises:
        ImageError: an image cannot be built.
        RehearsalError: the commit does not exist here.
        DefinitionError: a task definition cannot be used.
    """
    definition = spelled_out(read(ROOT / "task-definition.json"))
    checkout = None if old is None else _checkout(old)
    try:
        base = base_image(engine, environment, say)
        versions = []
        if old is not None and checkout is not None:
            say(f"Building the images of {old} ...")
            theirs = spelled_out(read(checkout / "task-definition.json"))
            versions.append(Version("old", _build(engine, checkout, base, "rehearse-old"), theirs))
        say("Building today's images ...")
        images = _build(engine, ROOT, base, "rehearse")
        versions.append(Version("today", images, definition))
        for name, (containers, dockerfile) in DERIVED.items():
            changed = {container: _above(engine, images[container], name, dockerfile) for container in containers}
            versions.append(Version(name, {**images, **changed}, definition))
    finally:
        if checkout is not None:
            shutil.rmtree(checkout, ignore_errors=True)
    return versions


def _build(engine: Engine, folder: Path, base: str, tag: str) -> dict[str, str]:
    images = {}
    for container, (dockerfile, name) in IMAGES.items():
        if not (folder / dockerfile).exists():
            raise ImageError(f"the version has no {dockerfile}")
        images[container] = f"localhost/{name}:{tag}"
        engine.build(folder, dockerfile, images[container], {"PYTHON_IMAGE": base})
    return images


def _above(engine: Engine, image: str, tag: str, dockerfile: str) -> str:
    """Build an image on top of another image."""
    name = f"{image}-{tag}"
    folder = _temporary()
    try:
        (folder / "Dockerfile").write_text(dockerfile.format(image=image))
        engine.build(folder, "Dockerfile", name, {})
    finally:
        shutil.rmtree(folder)
    return name


def _checkout(commit: str) -> Path:
    """Return a temporary folder with the files of a commit.

    Raises:
        RehearsalError: the commit does not exist.
    """
    named = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}"]
    found = subprocess.run(named, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise RehearsalError(f"OLD={commit}: git has no such commit")
    folder = _temporary()
    with subprocess.Popen(["git", "-C", str(ROOT), "archive", found.stdout.strip()], stdout=subprocess.PIPE) as archive:
        unpacked = subprocess.run(["tar", "-x", "-C", str(folder)], stdin=archive.stdout, check=False)
    if archive.returncode != 0 or unpacked.returncode != 0:
        shutil.rmtree(folder)
        raise RehearsalError(f"OLD={commit}: its files cannot be unpacked")
    return folder


def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="rehearse-"))
