"""`python -m ops.images`: build both images and check them; `make images` calls it."""

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ops.images.base import base_image
from ops.images.checks import check_health, check_imports, free_port
from ops.images.contents import audit_debian, audit_python, write_bill
from ops.images.engine import Engine, ImageError, engine
from runtime.command_line import prepare_streams

ROOT = Path(__file__).resolve().parents[2]
INTERRUPTED = 130
BILLS = Path(".run/images")


@dataclass(frozen=True, slots=True)
class Image:
    """One of the two images, with an environment in which its program starts without servers."""

    name: str
    dockerfile: str
    program: str
    packages: tuple[str, ...]
    requirements: str
    environment: Mapping[str, str]


def images() -> list[Image]:
    """Return both images.

    The programs are healthy without servers, so nothing listens at the servers' addresses.
    """
    ports = [str(free_port()) for _ in range(4)]
    sidecar = {
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": "1",
        "CONTROL_BIND": f"127.0.0.1:{ports[0]}",
        "METRICS_BIND": f"127.0.0.1:{ports[1]}",
    }
    api = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/postgres",
        "AUTH": "off",
        "PRICE_SOURCE": "simulated",
        "API_BIND": f"127.0.0.1:{ports[2]}",
        "INTERNAL_BIND": f"127.0.0.1:{ports[3]}",
        "SIDECAR_URL": "http://127.0.0.1:1",
    }
    return [
        Image(
            "lease-sidecar",
            "Dockerfile.sidecar",
            "sidecar",
            ("runtime", "sidecar"),
            "requirements/sidecar.txt",
            sidecar,
        ),
        Image(
            "portfolio-api",
            "Dockerfile.api",
            "service",
            ("runtime", "sidecar.client", "service"),
            "requirements/service.txt",
            api,
        ),
    ]


def main() -> int:
    """Return the exit status: 0 if both images are good, 1 if not, 2 without engine or base image, 130 at a signal."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # unfinished work is removed, as at Ctrl-C
    try:
        return _make_both()
    except KeyboardInterrupt:
        print("\nimages: interrupted", file=sys.stderr)
        return INTERRUPTED


def _make_both() -> int:
    try:
        builder = engine(os.environ)
        base = base_image(builder, os.environ, _say)
    except ImageError as error:
        print(f"images: {error}", file=sys.stderr)
        return 2
    _say(f"Building with {builder.name} on {base}")
    try:
        good = [_make(builder, base, image) for image in images()]
    except ImageError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0 if all(good) else 1


def _make(builder: Engine, base: str, image: Image) -> bool:
    builder.build(ROOT, image.dockerfile, image.name, {"PYTHON_IMAGE": base})
    whole, below = builder.size(image.name), builder.size(base)
    _say(f"{image.name}: {whole / 1e6:.0f} MB, {(whole - below) / 1e6:.0f} MB more than its base")
    _say(f"  {check_imports(builder, image.name, image.packages)}")
    _say(f"  {check_health(builder, image.name, image.program, image.environment)}")
    bill = BILLS / f"{image.name}.cdx.json"
    _say(f"  {write_bill(builder, image.name, bill)}: {bill}")
    well, audit = audit_python(ROOT / image.requirements)
    _say(f"  Python packages: {audit}")
    _say(f"  Debian packages: {audit_debian(builder, image.name)}")
    return well


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    prepare_streams()
    sys.exit(main())
