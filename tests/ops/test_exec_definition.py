"""examples/exec/task-definition.json: a third container copies the wrapper to a worker whose image has no Python."""

import json
import re
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate

from ops.local.definition import read
from sidecar import settings as sidecar_settings
from tests.ops.test_task_definition import CONTAINERS, DOCKERFILES, MEMORY_BY_CPU, ROOT

FILE = ROOT / "examples/exec/task-definition.json"
DOCUMENT: dict[str, Any] = json.loads(FILE.read_text())
SIDECAR, WRAPPER, WORKER = DOCUMENT["containerDefinitions"]


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["environment"]}


def test_ecs_accepts_it() -> None:
    model = botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model("ecs", "service-2"))
    shape = model.operation_model("RegisterTaskDefinition").input_shape
    assert shape is not None
    assert botocore.validate.ParamValidator().validate(DOCUMENT, shape).generate_report() == ""
    containers = DOCUMENT["containerDefinitions"]
    assert sum(each["cpu"] for each in containers) <= int(DOCUMENT["cpu"])
    assert sum(each["memory"] for each in containers) <= int(DOCUMENT["memory"])
    assert int(DOCUMENT["memory"]) in MEMORY_BY_CPU[int(DOCUMENT["cpu"])]


def test_the_worker_starts_after_the_copy_and_stops_before_the_sidecar() -> None:
    found = read(FILE)
    assert found.dependents("sidecar") == found.dependents("wrapper") == ["worker"]
    assert WRAPPER["essential"] is False, "the task would end as soon as an essential container has ended"


def test_the_sidecar_equals_the_service_s_sidecar_except_for_the_lease() -> None:
    differ = {name for name in CONTAINERS["sidecar"] if CONTAINERS["sidecar"][name] != SIDECAR.get(name)}
    assert differ == {"mountPoints", "environment", "secrets", "logConfiguration"}
    assert WRAPPER["image"] == SIDECAR["image"], "the wrapper is part of the sidecar's image"
    settings = sidecar_settings.read(variables(SIDECAR) | {"REDIS_PASSWORD": "injected"})
    *_, lease, end = WORKER["entryPoint"]
    assert (lease in settings.keys, end) == (True, "--")
    assert WORKER["stopTimeout"] > settings.timings.grant_ttl


def test_the_wrapper_has_the_paths_of_the_image() -> None:
    dockerfile = DOCKERFILES["sidecar"].read_text()
    copied = [Path(path) for path in WRAPPER["entryPoint"][2:-1]]
    assert {"COPY --from=build /venv /venv", "COPY --from=build /app /app"} <= set(dockerfile.splitlines())
    (python,) = re.findall(r"python:(3\.\d+)-slim", dockerfile.splitlines()[5])
    assert copied == [Path("/usr/local"), Path("/venv"), Path("/app")], "the base image has its Python in /usr/local"
    assert variables(WORKER)["PYTHONPATH"] == f"/wrapper/app:/wrapper/venv/lib/python{python}/site-packages"
    mounts = [each["mountPoints"][0] for each in (WRAPPER, WORKER)]
    assert [mount["readOnly"] for mount in mounts] == [False, True]
    assert {(mount["sourceVolume"], mount["containerPath"]) for mount in mounts} == {("wrapper", "/wrapper")}
    assert DOCUMENT["volumes"] == [{"name": "wrapper"}]


def test_the_document_shows_the_main_parts() -> None:
    shown = (ROOT / "docs/exec.md").read_text()
    for container in (WRAPPER, WORKER):
        for field in ("entryPoint", "mountPoints"):
            assert f'"{field}": {_as_shown(container[field])}' in shown
    assert f'"dependsOn": {_as_shown(WORKER["dependsOn"])}' in shown


def _as_shown(value: object) -> str:
    return json.dumps(value).replace("[{", "[{ ").replace("}]", " }]").replace("}, {", " }, { ")
