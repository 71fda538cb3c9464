"""The program that builds and runs images on this machine: the first of docker, buildah and podman that works."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

HOST_FILES = ("/etc/pip.conf", "/etc/ssl/certs")
"""Paths of this machine that podman and buildah mount in a build: pip's configuration and the trusted CAs."""


class ImageError(Exception):
    """A failed step. The text is one line for people; the last output of a failed program may follow it."""


class Engine(Protocol):
    """Builds images and runs programs in them."""

    name: str

    def exists(self, image: str) -> bool:
        """Return true if the image is in the local store."""

    def pull(self, image: str) -> bool:
        """Fetch the image from its registry; False if that fails."""

    def add_root(self, folder: Path, image: str) -> None:
        """Make an image of a root folder."""

    def build(self, folder: Path, dockerfile: str, image: str, arguments: Mapping[str, str]) -> None:
        """Build the image from a Dockerfile in `folder`."""

    def run(
        self, image: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in a new container of the image, as the image's user."""

    def size(self, image: str) -> int:
        """Return the size of all layers in bytes."""


class Docker:
    """Docker, or podman with the same command line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._build_options = (
            ["--isolation", "chroot", "--network", "host", *_mounts()] if name == "podman" else ["--progress", "plain"]
        )

    def exists(self, image: str) -> bool:
        """Return true if the image is in the local store."""
        return call([self.name, "image", "inspect", image], check=False).returncode == 0

    def pull(self, image: str) -> bool:
        """Fetch the image from its registry; False if that fails."""
        return call([self.name, "pull", "--quiet", image], check=False).returncode == 0

    def add_root(self, folder: Path, image: str) -> None:
        """Make an image of a root folder."""
        with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as tar:
            call([self.name, "import", "-", image], stdin=tar.stdout)

    def build(self, folder: Path, dockerfile: str, image: str, arguments: Mapping[str, str]) -> None:
        """Build the image from a Dockerfile in `folder`."""
        call([self.name, "build", *self._build_options, *_build(folder, dockerfile, image, arguments)])

    def run(
        self, image: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in a new container of the image, as the image's user."""
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        program, *words = command
        return call(
            [self.name, "run", "--rm", "--read-only", *variables, "--entrypoint", program, image, *words], check=False
        )

    def size(self, image: str) -> int:
        """Return the size of all layers in bytes."""
        return int(call([self.name, "image", "inspect", "--format", "{{.Size}}", image]).stdout)


class Buildah:
    """Buildah: needs no daemon and, with chroot isolation, no rights over namespaces."""

    name = "buildah"

    def exists(self, image: str) -> bool:
        """Return true if the image is in the local store."""
        return call(["buildah", "inspect", "--type", "image", image], check=False).returncode == 0

    def pull(self, image: str) -> bool:
        """Fetch the image from its registry; False if that fails."""
        return call(["buildah", "pull", "--quiet", image], check=False).returncode == 0

    def add_root(self, folder: Path, image: str) -> None:
        """Make an image of a root folder."""
        container = call(["buildah", "from", "scratch"]).stdout.strip()
        try:
            call(["buildah", "add", "--quiet", container, str(folder), "/"])
            call(["buildah", "commit", "--quiet", container, image])
        finally:
            call(["buildah", "rm", container])

    def build(self, folder: Path, dockerfile: str, image: str, arguments: Mapping[str, str]) -> None:
        """Build the image from a Dockerfile in `folder`."""
        options = ["--layers", "--isolation", "chroot", "--network", "host", *_mounts()]
        call(["buildah", "bud", *options, *_build(folder, dockerfile, image, arguments)])

    def run(
        self, image: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in a new container of the image, as the image's user."""
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        container = call(["buildah", "from", image]).stdout.strip()
        try:
            return call(["buildah", "run", "--isolation", "chroot", *variables, container, "--", *command], check=False)
        finally:
            call(["buildah", "rm", container])

    def size(self, image: str) -> int:
        """Return the size of all layers in bytes."""
        listed = call(["buildah", "images", "--format", "{{.Size}}", image]).stdout.split()
        number, unit = listed[:2]
        return int(float(number) * {"KB": 1e3, "MB": 1e6, "GB": 1e9}[unit])


def engine(environment: Mapping[str, str]) -> Engine:
    """Return the engine in CONTAINER_ENGINE, or the first engine that works.

    Raises:
        ImageError: CONTAINER_ENGINE is invalid, or no engine works here.
    """
    wanted = environment.get("CONTAINER_ENGINE")
    known: dict[str, Engine] = {"docker": Docker("docker"), "buildah": Buildah(), "podman": Docker("podman")}
    if wanted is not None and wanted not in known:
        raise ImageError(f"CONTAINER_ENGINE: {wanted!r} is not docker, buildah or podman")
    for name in [wanted] if wanted is not None else known:
        if shutil.which(name) and call([name, "info"], check=False).returncode == 0:
            return known[name]
    if wanted is not None:
        raise ImageError(f"CONTAINER_ENGINE: {wanted} is not installed, or `{wanted} info` fails")
    raise ImageError("no docker (with its engine), buildah or podman works here; Debian has the package buildah")


def call(
    command: Sequence[str], *, check: bool = True, stdin: object = subprocess.DEVNULL
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end.

    Raises:
        ImageError: the program cannot be started, or (with `check`) its exit status is not 0.
    """
    try:
        ended = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)  # type: ignore[call-overload]
    except OSError as error:
        raise ImageError(f"{command[0]}: {error.strerror}") from None
    if check and ended.returncode != 0:
        last = "\n".join((ended.stdout + ended.stderr).strip().splitlines()[-15:])
        raise ImageError(f"`{' '.join(command[:2])}` ended with status {ended.returncode}:\n{last}")
    result: subprocess.CompletedProcess[str] = ended
    return result


def _mounts() -> list[str]:
    return [word for file in HOST_FILES if os.access(file, os.R_OK) for word in ("-v", f"{file}:{file}:ro")]


def _build(folder: Path, dockerfile: str, image: str, arguments: Mapping[str, str]) -> list[str]:
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    return [*given, "-f", str(folder / dockerfile), "-t", image, str(folder)]
