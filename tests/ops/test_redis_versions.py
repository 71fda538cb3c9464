"""`make redis-versions` fails and gives the reason if a version is unavailable; it skips no version."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.local.servers import ServerError, redis_binary
from tests.redis_versions.__main__ import DIFFERENTIAL, FAULTS, SCRIPTS, files_for
from tests.redis_versions.servers import VERSIONS, Missing, Version, binary_of, kept_in
from tests.support.processes import ROOT


def program(folder: Path, name: str, says: str) -> Path:
    """Make a program that prints the text."""
    file = folder / name
    file.write_text(f"#!/bin/sh\necho '{says}'\n")
    file.chmod(0o755)
    return file


def test_each_version_runs_the_scripts_and_the_model_and_two_run_the_faults() -> None:
    assert [each.name for each in VERSIONS] == ["Redis 6.2", "Redis 7.0", "Redis 8", "Valkey 8"]
    for version in VERSIONS:
        assert {*SCRIPTS, *DIFFERENTIAL} <= set(files_for(version))
    assert [each.name for each in VERSIONS if set(FAULTS) <= set(files_for(each))] == ["Redis 6.2", "Valkey 8"]
    assert [file for file in (*SCRIPTS, *DIFFERENTIAL, *FAULTS) if not (ROOT / file).exists()] == []


def test_a_server_on_the_path_is_used_where_it_has_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = Version("Redis 7.0", "Redis server v=7.0.", "bookworm", "redis-server")
    monkeypatch.setenv("PATH", str(tmp_path))
    binary = program(tmp_path, "redis-server", "Redis server v=7.0.15 sha=0")
    assert binary_of(version, tmp_path / "kept") == binary
    program(tmp_path, "redis-server", "Redis server v=8.0.2 sha=0")
    with pytest.raises(Missing, match=r"^debootstrap is not installed; Debian has it in the package debootstrap$"):
        binary_of(version, tmp_path / "kept")


def test_a_downloaded_server_is_used_and_must_have_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = Version("Valkey 8", "Valkey server v=8.", "trixie", "valkey-server")
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = tmp_path / "kept/trixie/bin"
    folder.mkdir(parents=True)
    launcher = program(folder, "valkey-server", "Valkey server v=8.1.1 sha=0")
    assert binary_of(version, tmp_path / "kept") == launcher
    program(folder, "valkey-server", "Redis server v=8.0.2 sha=0")
    with pytest.raises(Missing, match=r"^Valkey 8: .* reports Redis server v=8\.0\.2; delete .* to download it again$"):
        binary_of(version, tmp_path / "kept")


def test_a_failed_download_leaves_nothing_and_reports_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = Version("Valkey 8", "Valkey server v=8.", "trixie", "valkey-server")
    failing = program(tmp_path, "debootstrap", "E: no such mirror")
    with failing.open("a") as file:
        file.write("exit 1\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(Missing, match=r"^debootstrap of Debian trixie failed: E: no such mirror$"):
        binary_of(version, tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Missing, match="debootstrap needs root"):
        binary_of(version, tmp_path / "kept")


def test_a_missing_version_is_one_line_and_status_2(tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path), "REDIS_SERVER": str(tmp_path / "none")}
    words = [sys.executable, "-m", "tests.redis_versions"]
    ended = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "redis-versions: Redis 6.2: the wheel has no redis-server of that version; run make setup\n"


def test_downloads_are_kept_for_the_next_run() -> None:
    assert kept_in({"HOME": "/home/me"}) == Path("/home/me/.cache/ecs-lease-sidecar/redis-versions")
    assert kept_in({"XDG_CACHE_HOME": "/cache"}) == Path("/cache/ecs-lease-sidecar/redis-versions")
    assert "make redis-versions\n" in (ROOT / ".ci/run").read_text()


def test_redis_server_replaces_the_wheel_s_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = program(tmp_path, "valkey-server", "Valkey server v=8.1.1 sha=0")
    monkeypatch.setenv("REDIS_SERVER", str(binary))
    assert redis_binary() == binary
    monkeypatch.setenv("REDIS_SERVER", str(tmp_path / "none"))
    with pytest.raises(ServerError, match=r"^REDIS_SERVER: .* is not a program$"):
        redis_binary()
