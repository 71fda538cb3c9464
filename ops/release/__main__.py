"""`python -m ops.release`: build the wheel and the sdist and test both; `make release-check` calls it."""

import asyncio
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg

from ops.local.servers import PostgresServer, ServerError
from ops.release.pythons import pythons
from runtime.command_line import prepare_streams

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    ("-m", "sidecar", "--help"),
    ("-m", "service", "--help"),
    *(
        ("-m", "service", name, "--help")
        for name in ("serve", "migrate", "sample", "run", "import", "fence", "token", "healthcheck")
    ),
)
"""Arguments of Python for commands that print their usage and exit with 0."""
IMPORT_ALL = """
import importlib, pkgutil, runtime, sidecar, service
names = [m.name for p in (runtime, sidecar, service) for m in pkgutil.walk_packages(p.__path__, p.__name__ + ".")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names), "modules")
"""
ONLY_CLIENT = """
import importlib.util, sidecar.client
extra = ("aiohttp_sse", "asyncpg", "numpy", "prometheus_client", "pythonjsonlogger", "redis", "uvloop")
there = [name for name in extra if importlib.util.find_spec(name)]
assert not there, f"the client's install brought {there}"
"""
SERVE_PAGE = """
from aiohttp import web
from service.api.operators_page import add_page
add_page(web.Application())
"""


class ReleaseError(Exception):
    """A package is faulty; the text is for people."""


def main() -> int:
    """Build and test; returns the exit status: 0 if the packages are good, 1 if not."""
    try:
        with TemporaryDirectory(prefix="release-") as name:
            folder = Path(name)
            wheel, sdist = _build(folder)
            with PostgresServer(folder / "postgres", settings=("fsync=off",)) as postgres:
                for version, python in pythons().items():
                    _say(f"Python {version}: client")
                    _try_client(python, folder / f"client-{version}", wheel)
                    _say(f"Python {version}: sidecar and service")
                    _try_all(python, folder / f"all-{version}", wheel, postgres)
            _say("sdist: builds the same wheel")
            _compare(folder, wheel, sdist)
    except (ReleaseError, ServerError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    _say(f"{wheel.name} and {sdist.name} are good on Python {', '.join(pythons())}")
    return 0


def _build(folder: Path) -> tuple[Path, Path]:
    _say("Building")
    _run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)])
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def _try_client(python: Path, folder: Path, wheel: Path) -> None:
    """Test an install without extras: it brings only the client's aiohttp, and each program names its missing extra."""
    venv = _install(python, folder, str(wheel))
    _run([venv, "-I", "-c", ONLY_CLIENT])
    for extra, *words in (
        ("sidecar", str(venv), "-m", "sidecar"),
        ("sidecar", str(venv.with_name("lease-sidecar")), "leaders"),
        ("service", str(venv), "-m", "service"),
    ):
        refused = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder)
        if refused.returncode != 2 or refused.stderr.count("\n") != 1 or f"[{extra}]" not in refused.stderr:
            raise ReleaseError(f"{' '.join(words)}: exit status {refused.returncode}: {refused.stderr}")


def _try_all(python: Path, folder: Path, wheel: Path, postgres: PostgresServer) -> None:
    """Test both extras: the modules, the commands' help, the operators' page, and the wheel's migrations."""
    venv = _install(python, folder, f"{wheel}[sidecar,service]")
    _run([venv, "-I", "-c", IMPORT_ALL])
    _run([venv, "-I", "-c", SERVE_PAGE])
    for words in COMMANDS:
        _run([venv, *words], cwd=folder)
    _run([venv.with_name("lease-sidecar"), "--help"], cwd=folder)
    name = folder.name.replace("-", "_").replace(".", "_")
    asyncio.run(_create(postgres.url, name))
    settings = {"DATABASE_URL": f"{postgres.url.rsplit('/', 1)[0]}/{name}", "AUTH": "off", "PRICE_SOURCE": "simulated"}
    for words in (("migrate",), ("sample",)):
        _run([venv, "-m", "service", *words], cwd=folder, environment=settings)


async def _create(url: str, name: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f"create database {name}")
    await connection.close()


def _compare(folder: Path, wheel: Path, sdist: Path) -> None:
    """Check that a wheel built from the sdist has the same file names as the wheel."""
    _run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder / "again"), str(sdist)]
    )
    (again,) = (folder / "again").glob("*.whl")
    ours, theirs = (set(zipfile.ZipFile(path).namelist()) for path in (wheel, again))
    if ours != theirs:
        raise ReleaseError(f"the wheel of the sdist differs in {sorted(ours ^ theirs)[:5]}")


def _install(python: Path, folder: Path, what: str) -> Path:
    """Return the interpreter of a new virtual environment with that package."""
    _run([python, "-m", "venv", folder])
    venv = folder / "bin" / "python"
    _run([venv, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", what])
    return venv


def _run(words: Sequence[str | Path], *, cwd: Path | None = None, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=cwd, env=os.environ | (environment or {})
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise ReleaseError(f"{' '.join(map(str, words))[-200:]}: exit status {done.returncode}: {said}")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    prepare_streams()
    sys.exit(main())
