"""A server of each version: from the Python wheel, the PATH, or a Debian package that is unpacked in a folder."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ops.images.base import debian_mirror
from ops.local.servers import ServerError, redis_binary


class Missing(Exception):
    """A server is not available; the error text gives the reason in one line."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version to test. `says` is the start of the server's output for --version.

    `suite` and `package` are Debian's names; None for the server from the wheel.
    """

    name: str
    says: str
    suite: str | None = None
    package: str | None = None
    with_faults: bool = False


VERSIONS = (
    Version("Redis 6.2", "Redis server v=6.2.", with_faults=True),
    Version("Redis 7.0", "Redis server v=7.0.", "bookworm", "redis-server"),
    Version("Redis 8", "Redis server v=8.", "trixie", "redis-server"),
    Version("Valkey 8", "Valkey server v=8.", "trixie", "valkey-server", with_faults=True),
)


def kept_in(environment: Mapping[str, str]) -> Path:
    """Return the folder for downloads, which the next run uses again."""
    cache = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "/root")) / ".cache"
    return Path(cache) / "ecs-lease-sidecar" / "redis-versions"


def binary_of(version: Version, kept: Path) -> Path:
    """Return the path of a server of this version; Debian's package is downloaded once.

    Raises:
        Missing: the server is not available.
    """
    for found in _on_this_machine(version):
        if _reported_version(found).startswith(version.says):
            return found
    if version.suite is None or version.package is None:
        raise Missing(f"{version.name}: the wheel has no redis-server of that version; run make setup")
    launcher = kept / version.suite / "bin" / version.package
    if not launcher.exists():
        _download(version.suite, kept)
    if not (output := _reported_version(launcher)).startswith(version.says):
        raise Missing(
            f"{version.name}: {launcher} reports {output or 'no version'}; delete {kept} to download it again"
        )
    return launcher


def _on_this_machine(version: Version) -> list[Path]:
    """Return the installed server that may have the version: from `redis_binary` for Redis 6.2, otherwise from PATH."""
    if version.suite is None:
        try:
            return [redis_binary()]
        except ServerError:
            return []
    found = shutil.which(version.package or "")
    return [] if found is None else [Path(found)]


def _reported_version(binary: Path) -> str:
    """Return the name and the version that a server reports; empty if it reports none."""
    try:
        words = [str(binary), "--version"]
        output = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout
    except OSError:
        return ""
    return output.partition(" sha=")[0]


def _download(suite: str, kept: Path) -> None:
    """Unpack Debian's packages into a folder; an incomplete folder is removed."""
    packages = sorted({each.package for each in VERSIONS if each.suite == suite and each.package is not None})
    if shutil.which("debootstrap") is None:
        raise Missing("debootstrap is not installed; Debian has it in the package debootstrap")
    if os.geteuid() != 0:
        raise Missing(f"debootstrap needs root: {', '.join(packages)} of Debian {suite} cannot be downloaded")
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{suite}-", dir=kept) as name:
        folder = Path(name)
        root, log = folder / "root", folder / "log"
        include = f"--include={','.join(packages)}"
        words = ["debootstrap", "--variant=minbase", include, suite, str(root), *debian_mirror()]
        with log.open("wb") as file:
            ended = subprocess.run(words, stdout=file, stderr=file, check=False)
        if ended.returncode:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise Missing(f"debootstrap of Debian {suite} failed: {' '.join(last)}")
        shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
        made = kept / suite
        (folder / "bin").mkdir()
        for package in packages:
            launcher = folder / "bin" / package
            launcher.write_text(_launcher(made / "root", package))
            launcher.chmod(0o755)
        folder.chmod(0o755)
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        for part in (root, folder / "bin"):
            part.rename(made / part.name)


def _launcher(root: Path, package: str) -> str:
    """Return a shell script that runs the server with the libraries of its Debian suite."""
    triplet = f"{platform.machine()}-linux-gnu"
    [loader] = ("ld-linux-x86-64.so.2",) if platform.machine() == "x86_64" else ("ld-linux-aarch64.so.1",)
    libraries = root / "usr/lib" / triplet
    return f'#!/bin/sh\nexec {libraries / loader} --library-path {libraries} {root / "usr/bin" / package} "$@"\n'
