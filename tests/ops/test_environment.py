"""The environments of `make run` differ from the task definition only where tasks on one machine need other values."""

import socket
import sys
from pathlib import Path

import pytest

from ops.local.addresses import check_free, listeners, shifted
from ops.local.definition import ContainerDefinition, DefinitionError, TaskDefinition, parse
from ops.local.environment import container_environment
from ops.local.programs import API, DEFAULTS, SIDECAR, spelled_out
from ops.local.servers import free_port
from ops.local.settings import RunSettings, UsageError
from service.settings import Settings as ServiceSettings
from sidecar import settings as sidecar_settings

OWN = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "7000", "DATABASE_URL": "postgresql://here/db"}


def container(variables: dict[str, str], *secrets: str, name: str = "c") -> ContainerDefinition:
    entry = {
        "name": name,
        "image": "test",
        "command": ["true"],
        "environment": [{"name": name, "value": value} for name, value in variables.items()],
        "secrets": [{"name": name, "valueFrom": "arn:aws:x"} for name in secrets],
    }
    return parse({"family": "test", "containerDefinitions": [entry]}).container(name)


def definition(**containers: ContainerDefinition) -> TaskDefinition:
    both = {name: container({}, name=name) for name in (API, SIDECAR)} | containers
    return parse({"family": "test", "containerDefinitions": [*both.values()]})


def test_each_task_s_ports_are_shifted_and_stay_on_loopback() -> None:
    moved = shifted(container({"API_BIND": "0.0.0.0:8080", "SIDECAR_URL": "http://127.0.0.1:4040"}), 100)
    assert moved == {"API_BIND": "127.0.0.1:8180", "SIDECAR_URL": "http://127.0.0.1:4140"}
    assert listeners(moved) == {"API_BIND": 8180}


def test_an_external_or_missing_address_does_not_change() -> None:
    elsewhere = {"PRICES_URL": "https://prices.example:8443/v1", "A_URL": "http://[::1", "B_URL": "http://localhost:x"}
    assert shifted(container(elsewhere), 100) == elsewhere


@pytest.mark.parametrize("value", ["here", "8080", ":8080", "0.0.0.0:"])
def test_an_invalid_address_is_reported(value: str) -> None:
    with pytest.raises(DefinitionError, match=rf"^container c: environment API_BIND='{value}' is not host:port$"):
        shifted(container({"API_BIND": value}), 100)


def test_a_container_gets_its_definition_but_not_the_caller_s_environment() -> None:
    given = container_environment(
        container({"LEASE_TTL": "30"}),
        shift=0,
        caller={"INSTANCE_ID": "x", "AWS_SECRET": "y", "PATH": "/bin"},
        backends=OWN,
    )
    assert given["LEASE_TTL"] == "30"
    assert not {"INSTANCE_ID", "AWS_SECRET", "REDIS_HOST", "DATABASE_URL"} & set(given)
    assert given["PATH"] == f"{Path(sys.executable).parent}:/bin"


def test_the_run_has_short_intervals_unless_the_caller_sets_them() -> None:
    defined = container({"TRACKER_INTERVAL": "30", "MARKET_CALENDAR": "NYSE", "LOG_FORMAT": "json"})
    lively = container_environment(defined, shift=0, caller={}, backends={})
    assert (lively["TRACKER_INTERVAL"], lively["MARKET_CALENDAR"], lively["LOG_FORMAT"]) == ("2", "24/7", "text")
    chosen = container_environment(
        defined, shift=0, caller={"TRACKER_INTERVAL": "7", "LOG_FORMAT": "json"}, backends={}
    )
    assert (chosen["TRACKER_INTERVAL"], chosen["LOG_FORMAT"]) == ("7", "text")


def test_a_run_needs_access_tokens_and_keys_only_if_the_caller_sets_them() -> None:
    defined = container({"AUTH": "supabase", "SUPABASE_URL": "https://x.example", "PRICE_SOURCE": "alpaca"})
    open_run = container_environment(defined, shift=0, caller={}, backends={})
    assert (open_run["AUTH"], open_run["PRICE_SOURCE"]) == ("off", "simulated")
    brought = {
        "AUTH": "supabase",
        "SUPABASE_URL": "http://127.0.0.1:54321",
        "SUPABASE_JWT_SECRET": "s",
        "PRICE_SOURCE": "alpaca",
        "APCA_API_KEY_ID": "k",
        "APCA_API_SECRET_KEY": "t",
    }
    assert brought.items() <= container_environment(defined, shift=0, caller=brought, backends={}).items()
    assert not {*brought} & container_environment(container({}), shift=0, caller=brought, backends={}).keys()


@pytest.mark.parametrize("shift", [0, 100])
def test_the_caller_cannot_change_the_address_of_one_task(shift: int) -> None:
    defined = container({"CONTROL_BIND": "127.0.0.1:4040", "SIDECAR_URL": "http://127.0.0.1:4040"})
    caller = {"CONTROL_BIND": "127.0.0.1:1", "SIDECAR_URL": "http://127.0.0.1:1"}
    given = container_environment(defined, shift=shift, caller=caller, backends={})
    assert given["CONTROL_BIND"] == f"127.0.0.1:{4040 + shift}"
    assert given["SIDECAR_URL"] == f"http://127.0.0.1:{4040 + shift}"


@pytest.mark.parametrize(
    ("variables", "secrets"),
    [
        ({"REDIS_HOST": "cloud", "REDIS_PORT": "6379"}, ["REDIS_PASSWORD"]),
        ({"REDIS_URL": "rediss://cloud:6379", "REDIS_PORT": "6379"}, ["REDIS_PASSWORD"]),
        ({"REDIS_URL": "rediss://cloud:6379", "REDIS_USERNAME": "us"}, ["REDIS_PASSWORD"]),
        ({"REDIS_URL": "rediss://us:secret@cloud:6379"}, []),
        ({"REDIS_URL": "redis://localhost:6379"}, []),
        ({}, ["REDIS_URL"]),
        ({}, []),
    ],
)
@pytest.mark.parametrize(
    "ours",
    [
        {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "7000"},
        {"REDIS_URL": "rediss://there:1"},
        {"REDIS_URL": "rediss://there:1", "REDIS_USERNAME": "me", "REDIS_PASSWORD": "mine"},
    ],
)
def test_a_sidecar_uses_the_run_s_redis_whatever_the_definition_names(
    variables: dict[str, str], secrets: list[str], ours: dict[str, str]
) -> None:
    sidecar = spelled_out(definition(sidecar=container(variables, *secrets, name="sidecar"))).container("sidecar")
    caller = dict.fromkeys([*variables, "REDIS_HOST", "REDIS_PORT"], "caller")
    given = container_environment(sidecar, shift=0, caller=caller, backends=ours | {"DATABASE_URL": "x"})
    assert {name: value for name, value in given.items() if name.startswith("REDIS_")} == ours
    assert "DATABASE_URL" not in given
    assert sidecar_settings.read(given).redis.password == ours.get("REDIS_PASSWORD")


@pytest.mark.parametrize(
    ("variables", "secrets"),
    [({}, ["DATABASE_URL"]), ({"DATABASE_URL": "postgresql://cloud/db"}, []), ({"DATABASE_URL": "http://[::1"}, [])],
)
def test_an_api_uses_the_run_s_postgres_whatever_the_definition_names(
    variables: dict[str, str], secrets: list[str]
) -> None:
    tls = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/app/certificates/cloud.crt"}
    api = container(variables | tls, *secrets)
    given = container_environment(api, shift=0, caller={"DATABASE_URL": "caller", "PGSSLMODE": "x"}, backends=OWN)
    assert given["DATABASE_URL"] == "postgresql://here/db"
    assert not {"REDIS_HOST", "REDIS_PORT", *tls} & set(given)


def test_redis_timeout_comes_from_the_definition_or_the_caller() -> None:
    sidecar = container({"REDIS_TIMEOUT": "1"})
    assert container_environment(sidecar, shift=0, caller={}, backends=OWN)["REDIS_TIMEOUT"] == "1"
    assert container_environment(sidecar, shift=0, caller={"REDIS_TIMEOUT": "2"}, backends=OWN)["REDIS_TIMEOUT"] == "2"


def test_defaults_are_changed_like_variables_of_the_definition() -> None:
    bare = spelled_out(definition())
    first, second = (
        {
            name: container_environment(bare.container(name), shift=shift, caller={}, backends=OWN)
            for name in (API, SIDECAR)
        }
        for shift in (0, 100)
    )
    assert listeners(first[API]) == {"API_BIND": 8080, "INTERNAL_BIND": 9101}
    assert listeners(second[API]) == {"API_BIND": 8180, "INTERNAL_BIND": 9201}
    assert listeners(second[SIDECAR]) == {"CONTROL_BIND": 4140, "METRICS_BIND": 9202}
    assert second[API]["SIDECAR_URL"] == "http://127.0.0.1:4140"
    lively = {"MARKET_CALENDAR": "24/7", "TRACKER_INTERVAL": "2", "AUTH": "off", "LOG_FORMAT": "text"}
    assert lively.items() <= first[API].items()
    assert first[SIDECAR]["LOG_FORMAT"] == "text"


def test_the_added_variables_equal_the_programs_defaults() -> None:
    checked = sidecar_settings.read({})
    assert sidecar_settings.read(DEFAULTS[SIDECAR]) == checked
    fields = ServiceSettings.model_fields
    for name, value in DEFAULTS[API].items():
        if name not in ("AUTH", "PRICE_SOURCE"):  # their fields have no default
            default = fields[name.lower()].default or ""
            assert value in (str(default), f"{default:g}" if isinstance(default, float) else None), name


def test_a_default_does_not_override_the_definition() -> None:
    api = container({"API_BIND": "0.0.0.0:80"}, name=API)
    assert spelled_out(definition(api=api)).container(API).variables["API_BIND"] == "0.0.0.0:80"


@pytest.mark.parametrize("name", [API, SIDECAR])
def test_a_definition_without_one_of_the_two_programs_is_reported(name: str) -> None:
    other = parse({"family": "test", "containerDefinitions": [container({}, name=name)]})
    with pytest.raises(DefinitionError, match=r"^task definition: no container is named (api|sidecar)$"):
        spelled_out(other)


def test_a_container_with_its_image_s_command_is_not_run() -> None:
    agent = {"name": "agent", "image": "agent:1", "essential": False}
    agent_too = {
        "family": "test",
        "containerDefinitions": [container({}, name=API), container({}, name=SIDECAR), agent],
    }
    found = spelled_out(parse(agent_too))
    assert [entry.name for entry in found.container_definitions] == [API, SIDECAR]


def test_a_port_in_use_is_reported_with_its_process_and_a_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UsageError, match=rf"^port {port}, which task1/api needs, is in use by .* RUN_PORT_OFFSET"):
            check_free(port, "task1/api")
    check_free(free_port(), "task1/api")


@pytest.mark.parametrize("text", ["0", "10", "x", "2.5", "-1"])
def test_a_bad_number_of_tasks_is_reported_with_its_name(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"^RUN_TASKS='{text}' is not a whole number from 1 to 9$"):
        RunSettings.read({"RUN_TASKS": text}, tmp_path)


def test_empty_settings_are_the_defaults(tmp_path: Path) -> None:
    empty = dict.fromkeys(["RUN_TASKS", "RUN_PORT_OFFSET", "RUN_FOLDER", "REDIS_URL", "DATABASE_URL"], "")
    assert RunSettings.read(empty, tmp_path) == RunSettings(2, 0, tmp_path / ".run", None, None)
