"""`make images` without a program that builds images ends with one line and status 2. `.ci/run` builds real images."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.images.__main__ import images
from ops.images.contents import _verdict, debian_suite

ROOT = Path(__file__).parents[2]


def make_images(path: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "ops.images"],
        cwd=ROOT,
        env={"PATH": str(path), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def program(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_without_an_engine_the_error_names_the_three_supported_engines(tmp_path: Path) -> None:
    ended = make_images(tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("images: no docker (with its engine), buildah or podman works here")
    assert ended.stderr.count("\n") == 1


def test_an_engine_whose_daemon_does_not_answer_is_not_used(tmp_path: Path) -> None:
    program(tmp_path, "docker", "exit 1")
    ended = make_images(tmp_path, CONTAINER_ENGINE="docker")
    assert ended.returncode == 2
    assert ended.stderr == "images: CONTAINER_ENGINE: docker is not installed, or `docker info` fails\n"


@pytest.mark.parametrize("name", ["kaniko", ""])
def test_an_unknown_engine_is_refused(tmp_path: Path, name: str) -> None:
    ended = make_images(tmp_path, CONTAINER_ENGINE=name)
    assert ended.returncode == 2
    assert ended.stderr == f"images: CONTAINER_ENGINE: {name!r} is not docker, buildah or podman\n"


def test_a_base_image_that_cannot_be_pulled_is_named(tmp_path: Path) -> None:
    program(tmp_path, "buildah", 'test "$1" = info')
    ended = make_images(tmp_path, PYTHON_IMAGE="python:none")
    assert ended.returncode == 2
    assert ended.stderr == "images: PYTHON_IMAGE: buildah cannot pull python:none\n"


def test_a_base_image_of_debian_s_packages_needs_debootstrap(tmp_path: Path) -> None:
    program(tmp_path, "buildah", 'test "$1" = info')
    ended = make_images(tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == "images: debootstrap is not installed; Debian has it in the package debootstrap\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_build_in_one_line_and_removes_the_working_container(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The engine in this test is a script that records its calls, and whose container never exits."""
    script = 'echo "$1" >> "$0.calls"; test "$1" != from || echo box; test "$1" != run || exec sleep 600'
    program(tmp_path, "buildah", script)
    calls = tmp_path / "buildah.calls"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CONTAINER_ENGINE": "buildah", "PYTHON_IMAGE": "base"}
    with subprocess.Popen(
        [sys.executable, "-c", INSPECT_ALONE], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not calls.exists() or "run" not in calls.read_text().split():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "\nimages: interrupted\n")
    assert calls.read_text().split()[-1] == "rm"


INSPECT_ALONE = """
import sys
from ops.images import __main__ as made
made._make_both = lambda: made.check_imports(made.engine(made.os.environ), "image", ("service",))
sys.exit(made.main())
"""
"""Program that begins `make images` at the step that runs a container, since the fake engine builds nothing."""


def test_each_image_has_its_source_files() -> None:
    for image in images():
        assert (ROOT / image.dockerfile).is_file()
        assert (ROOT / image.requirements).is_file()


def test_a_vulnerable_package_fails_the_audit_and_is_named() -> None:
    good: dict[str, object] = {"name": "a", "version": "1", "vulns": []}
    bad: dict[str, object] = {"name": "b", "version": "2", "vulns": [{"id": "X"}]}
    assert _verdict([good, bad]) == (False, "2 of 2 packages audited, 1 with known vulnerabilities: b 2")


def test_an_audit_without_known_packages_is_reported_as_not_audited() -> None:
    well, summary = _verdict([{"name": "a", "skip_reason": "not found"}])
    assert (well, summary) == (True, "NOT AUDITED: the database has none of the packages")


@pytest.mark.parametrize(
    ("os_release", "suite"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_CODENAME=bookworm\nID=debian\n', "bookworm"),
        ('VERSION_CODENAME="trixie"\n', "trixie"),
        ("ID=alpine\n", None),
    ],
)
def test_the_audit_takes_the_suite_from_the_image(os_release: str, suite: str | None) -> None:
    assert debian_suite(os_release) == suite
