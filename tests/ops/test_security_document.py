"""docs/security.md names the listening ports, every secret, and the Python versions that the package declares."""

import json
import re
import tomllib
from pathlib import Path

from sidecar.settings import CONTROL
from tests.ops.cloudformation import load
from tests.ops.test_task_definition import CONTAINERS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/security.md").read_text()


def test_each_listening_port_is_listed_with_its_container() -> None:
    rows = {(int(port), name) for port, name in re.findall(r"^\| (\d{4,5}) \| (\w+) \|", DOCUMENT, re.MULTILINE)}
    mapped = {
        (mapping["containerPort"], name) for name, entry in CONTAINERS.items() for mapping in entry["portMappings"]
    }
    assert rows == mapped | {(int(CONTROL.rpartition(":")[2]), "sidecar")}


def test_the_rotation_of_each_secret_is_described() -> None:
    rotation = DOCUMENT.split("## Secrets and their rotation")[1].split("\n## ")[0]
    generated = load()["Resources"]["Secret"]["Properties"]["GenerateSecretString"]
    for name in (*json.loads(generated["SecretStringTemplate"]), generated["GenerateStringKey"]):
        assert f"`{name}`" in rotation, name


def test_the_supported_pythons_are_the_pythons_of_the_package() -> None:
    [row] = re.findall(r"^\| Python \| ([^|]+) \|", DOCUMENT, re.MULTILINE)
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    declared = [entry.rpartition(" ")[2] for entry in classifiers if re.search(r":: 3\.\d+$", entry)]
    assert row.split(", ") == declared
    base = re.findall(r"python:(3\.\d+)-slim", (ROOT / "Dockerfile.sidecar").read_text())
    assert set(base) <= set(declared)


def test_each_document_in_a_reference_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", DOCUMENT):
        assert (ROOT / "docs" / target).exists(), target
