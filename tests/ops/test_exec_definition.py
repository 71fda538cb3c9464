"""examples/exec/task-definition.json: a third container copies the wrapper to a worker whose image has no Python."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate

from ops.local.definition import read
from ops.local.servers import RedisServer
from sidecar import settings as sidecar_settings
from sidecar.wrapper.arguments import USAGE
from tests.ops.test_task_definition import CONTAINERS, DOCKERFILES, MEMORY_BY_CPU, ROOT
from tests.sidecar.wrapper.programs import BECOME
from tests.support.processes import Process, RealSidecar, killed_at_exit
from tests.support.waiting import eventually

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


async def test_files_of_the_worker_do_not_replace_the_modules_of_the_wrapper(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """The wrapper begins in the worker's working directory."""
    _, *entry = WORKER["entryPoint"]
    for module in ("runtime", "secrets", "types", "sidecar"):
        (tmp_path / f"{module}.py").write_text(f"raise SystemExit('{module} of the worker')\n")
    sidecar = RealSidecar(tmp_path, redis_server, "task-a", LEASES=entry[-2])
    start = ["-c", BECOME, "sh", "-c", 'cd "$0"; exec "$@"', str(tmp_path), sys.executable, *entry]
    wrapper = Process(tmp_path / "log", [*start, "sh", "-c", ">began; sleep 1000"], SIDECAR_URL=sidecar.url)
    with killed_at_exit(sidecar, wrapper):
        sidecar.start()
        wrapper.start()
        await eventually(lambda: (tmp_path / "began").exists() or not wrapper.is_running)
        assert wrapper.is_running, wrapper.output


def test_each_documented_command_ignores_the_files_of_the_working_directory() -> None:
    texts = [(ROOT / name).read_text() for name in ("README.md", "docs/exec.md")]
    commands = re.findall(r'(\S+) "?-m"?,? "?sidecar"?,? "?exec\b', "\n".join([*texts, USAGE]))
    assert len(commands) > 5
    assert {command.strip('",') for command in commands} == {"-P"}


def _as_shown(value: object) -> str:
    return json.dumps(value).replace("[{", "[{ ").replace("}]", " }]").replace("}, {", " }, { ")
