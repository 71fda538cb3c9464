"""`python -m tests.redis_versions` tests the scripts and the model of Redis on each version, and faults on two of them.

A version that is not available is a failure, not a skip.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.redis_versions.servers import VERSIONS, Missing, Version, binary_of, kept_in

ROOT = Path(__file__).parents[2]
SCRIPTS = (
    "tests/sidecar/redis/test_scripts.py",
    "tests/sidecar/redis/test_scripts_faults.py",
    "tests/sidecar/redis/test_scripts_guard.py",
    "tests/sidecar/redis/test_rights.py",
    "tests/sidecar/redis/test_restricted_user.py",
    "tests/sidecar/redis/test_watch.py",
    "tests/sidecar/redis/test_password_file.py",
)
"""Tests of a server's answers to the scripts and to other commands."""
DIFFERENTIAL = ("tests/simulation/test_redis_model.py",)
"""Test that compares the simulator's model with a real server."""
FAULTS = ("tests/faults",)


def main() -> int:
    """Return the exit status: 1 if a test fails on a version, 2 if a version is not available."""
    failed = []
    for version in VERSIONS:
        try:
            binary = binary_of(version, kept_in(os.environ))
        except Missing as error:
            print(f"redis-versions: {error}", file=sys.stderr)
            return 2
        print(f"{version.name}: {binary}", flush=True)
        if _run(version, binary) != 0:
            failed.append(version.name)
    if failed:
        print(f"redis-versions: tests failed on {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def files_for(version: Version) -> Sequence[str]:
    """Return the tests that a version must pass."""
    return [*SCRIPTS, *DIFFERENTIAL, *(FAULTS if version.with_faults else ())]


def _run(version: Version, binary: Path) -> int:
    words = [sys.executable, "-m", "pytest", "-q", "--numprocesses", "2", "--dist", "worksteal"]
    words += ["--reruns", os.environ.get("RERUNS", "0"), *files_for(version)]
    return subprocess.run(words, cwd=ROOT, env=os.environ | {"REDIS_SERVER": str(binary)}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
