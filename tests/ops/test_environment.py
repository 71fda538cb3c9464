"""Addresses and environments: what differs on this machine, and nothing else."""

import socket
import sys
from pathlib import Path

import pytest

from ops.local.addresses import check_free, listeners, shifted
from ops.local.definition import ContainerDefinition, DefinitionError, parse
from ops.local.environment import container_environment
from ops.local.servers import free_port
from ops.local.settings import RunSettings, UsageError

OWN = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "7000", "DATABASE_URL": "postgresql://here/db"}


def container(variables: dict[str, str], *secrets: str) -> ContainerDefinition:
    entry = {
        "name": "c",
        "image": "test",
        "command": ["true"],
        "environment": [{"name": name, "value": value} for name, value in variables.items()],
        "secrets": [{"name": name, "valueFrom": "arn:aws:x"} for name in secrets],
    }
    return parse({"family": "test", "containerDefinitions": [entry]}).container("c")


def test_each_task_s_ports_are_shifted_and_stay_on_loopback() -> None:
    moved = shifted(container({"API_BIND": "0.0.0.0:8080", "SIDECAR_URL": "http://127.0.0.1:4040"}), 100)
    assert moved == {"API_BIND": "127.0.0.1:8180", "SIDECAR_URL": "http://127.0.0.1:4140"}
    assert listeners(moved) == {"API_BIND": 8180}


def test_an_address_elsewhere_is_left_alone() -> None:
    elsewhere = {"PRICES_URL": "https://prices.example:8443/v1"}
    assert shifted(container(elsewhere), 100) == elsewhere


def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(DefinitionError, match=r"^container c: environment API_BIND='here' is not host:port$"):
        shifted(container({"API_BIND": "here"}), 100)


def test_a_container_gets_its_definition_and_not_the_caller_s_environment() -> None:
    given = container_environment(
        container({"LEASE_TTL": "30"}),
        shift=0,
        caller={"INSTANCE_ID": "x", "AWS_SECRET": "y", "PATH": "/bin"},
        backends=OWN,
    )
    assert given["LEASE_TTL"] == "30"
    assert not {"INSTANCE_ID", "AWS_SECRET", "REDIS_HOST", "DATABASE_URL"} & set(given)
    assert given["PATH"] == f"{Path(sys.executable).parent}:/bin"


def test_the_run_is_lively_unless_the_caller_wants_it_otherwise() -> None:
    defined = container({"TRACKER_INTERVAL": "30", "MARKET_CALENDAR": "NYSE", "LOG_FORMAT": "json"})
    lively = container_environment(defined, shift=0, caller={}, backends={})
    assert (lively["TRACKER_INTERVAL"], lively["MARKET_CALENDAR"], lively["LOG_FORMAT"]) == ("2", "24/7", "text")
    chosen = container_environment(
        defined, shift=0, caller={"TRACKER_INTERVAL": "7", "LOG_FORMAT": "json"}, backends={}
    )
    assert (chosen["TRACKER_INTERVAL"], chosen["LOG_FORMAT"]) == ("7", "text")


def test_a_run_needs_no_access_token_and_no_keys_unless_the_caller_brings_them() -> None:
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


def test_the_caller_cannot_move_a_port_of_one_task() -> None:
    defined = container({"API_BIND": "0.0.0.0:8080"})
    given = container_environment(defined, shift=100, caller={"API_BIND": "0.0.0.0:1"}, backends={})
    assert given["API_BIND"] == "127.0.0.1:8180"


def test_redis_and_postgres_are_ours_where_the_definition_wants_them() -> None:
    sidecar = container({"REDIS_HOST": "cloud", "REDIS_PORT": "6379"}, "REDIS_PASSWORD")
    given = container_environment(sidecar, shift=0, caller={"REDIS_HOST": "mine"}, backends=OWN)
    assert (given["REDIS_HOST"], given["REDIS_PORT"]) == ("127.0.0.1", "7000")
    assert not {"REDIS_PASSWORD", "DATABASE_URL"} & set(given)
    api = container_environment(container({}, "DATABASE_URL"), shift=0, caller={}, backends=OWN)
    assert api["DATABASE_URL"] == "postgresql://here/db"


def test_a_redis_url_replaces_host_and_port() -> None:
    sidecar = container({"REDIS_HOST": "cloud", "REDIS_PORT": "6379"}, "REDIS_PASSWORD")
    backends = {"REDIS_URL": "rediss://there:1", "REDIS_PASSWORD": "secret"}
    given = container_environment(sidecar, shift=0, caller={}, backends=backends)
    assert not {"REDIS_HOST", "REDIS_PORT"} & set(given)
    assert (given["REDIS_URL"], given["REDIS_PASSWORD"]) == ("rediss://there:1", "secret")


def test_a_port_in_use_is_told_with_its_user_and_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UsageError, match=rf"^port {port}, which task1/api needs, is in use by .* RUN_PORT_OFFSET"):
            check_free(port, "task1/api")
    check_free(free_port(), "task1/api")


@pytest.mark.parametrize("text", ["0", "10", "x", "2.5", "-1"])
def test_a_bad_number_of_tasks_is_told_with_its_name(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"^RUN_TASKS='{text}' is not a whole number from 1 to 9$"):
        RunSettings.read({"RUN_TASKS": text}, tmp_path)


def test_empty_settings_are_the_defaults(tmp_path: Path) -> None:
    empty = dict.fromkeys(["RUN_TASKS", "RUN_PORT_OFFSET", "RUN_FOLDER", "REDIS_URL", "DATABASE_URL"], "")
    assert RunSettings.read(empty, tmp_path) == RunSettings(2, 0, tmp_path / ".run", None, None)
