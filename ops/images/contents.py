"""The contents of an image: a Software Bill of Materials (CycloneDX), and an audit for known vulnerabilities."""

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from ops.images.engine import Engine, ImageError, call

_LIST = """
import importlib.metadata, json, subprocess
python = sorted({(each.name, each.version) for each in importlib.metadata.distributions()})
shown = "--showformat=${Package} ${Version} ${Architecture}\\n"
debian = subprocess.run(["dpkg-query", "--show", shown], capture_output=True, text=True, check=True).stdout
print(json.dumps({"python": python, "debian": [line.split() for line in debian.splitlines()]}))
"""


def write_bill(engine: Engine, image: str, file: Path) -> str:
    """Write the image's bill of materials to `file` as CycloneDX JSON; returns a summary for people.

    Raises:
        ImageError: the image cannot list its packages.
    """
    ended = engine.run(image, ["python", "-c", _LIST], {})
    if ended.returncode != 0:
        raise ImageError(f"{image}: the packages cannot be listed:\n{ended.stderr.strip()[-1000:]}")
    listed = json.loads(ended.stdout)
    bom = Bom()
    root = bom.metadata.component = Component(name=image, type=ComponentType.CONTAINER, bom_ref=image)
    for name, version in listed["python"]:
        bom.components.add(_component(PackageURL("pypi", None, name.lower().replace("_", "-"), version)))
    for name, version, architecture in listed["debian"]:
        bom.components.add(_component(PackageURL("deb", "debian", name, version, {"arch": architecture})))
    bom.register_dependency(root, bom.components)
    file.parent.mkdir(parents=True, exist_ok=True)
    JsonV1Dot6(bom).output_to_file(str(file), allow_overwrite=True, indent=2)
    return f"{len(listed['python'])} Python packages, {len(listed['debian'])} Debian packages"


def _component(url: PackageURL) -> Component:
    return Component(name=url.name, version=url.version, type=ComponentType.LIBRARY, purl=url, bom_ref=url.to_string())


def audit_python(requirements: Path) -> tuple[bool, str]:
    """Look up the locked packages in a vulnerability database; returns true if none is vulnerable, and a summary.

    An unreachable database is not a failure: the summary then reports that nothing was audited.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--disable-pip", "--no-deps"]
    ended = call([*command, "--format", "json", "--progress-spinner", "off", "--timeout", "20"], check=False)
    try:
        packages = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError):
        return True, "NOT AUDITED: no database of known vulnerabilities is reachable"
    return _verdict(packages)


def _verdict(packages: Sequence[Mapping[str, object]]) -> tuple[bool, str]:
    audited = [each for each in packages if "skip_reason" not in each]
    if not audited:
        return True, "NOT AUDITED: the database has none of the packages"
    vulnerable = [each for each in audited if each.get("vulns")]
    summary = f"{len(audited)} of {len(packages)} packages audited, {len(vulnerable)} with known vulnerabilities"
    names = ", ".join(f"{each['name']} {each['version']}" for each in vulnerable)
    return not vulnerable, f"{summary}{': ' if names else ''}{names}"


def audit_debian(engine: Engine, image: str) -> str:
    """Count the vulnerabilities of the image that have a fix in Debian, with `debsecan`; returns a summary."""
    if shutil.which("debsecan") is None:
        return "NOT AUDITED: debsecan is not installed"
    suite = debian_suite(engine.run(image, ["cat", "/etc/os-release"], {}).stdout)
    if suite is None:
        return "NOT AUDITED: the image names no release of Debian"
    status = engine.run(image, ["cat", "/var/lib/dpkg/status"], {}).stdout
    file = Path(".run/images/dpkg-status")
    file.write_text(status)
    ended = call(["debsecan", "--suite", suite, "--status", str(file), "--only-fixed"], check=False)
    if ended.returncode != 0:
        return "NOT AUDITED: Debian's security tracker is not reachable"
    return f"{len(ended.stdout.splitlines())} known vulnerabilities with a fix in Debian"


def debian_suite(os_release: str) -> str | None:
    """The name of the Debian release, such as 'bookworm', in the text of `/etc/os-release`; None without a name."""
    found = re.search(r'^VERSION_CODENAME="?([a-z]+)"?$', os_release, re.MULTILINE)
    return None if found is None else found[1]
