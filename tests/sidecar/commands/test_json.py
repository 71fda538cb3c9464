"""`--json`: standard output is one document with complete texts, and nothing else."""

import json
from typing import Any

import pytest
from redis import Redis

from tests.sidecar.commands.test_fence import SMALL
from tests.sidecar.commands.test_operator import KEY, Run
from tests.sidecar.commands.test_operator import run as run
from tests.support.script_caller import FENCE, Caller

LEASE = "background_services"


def document(run: Run, *words: str, **environment: str) -> dict[str, Any]:
    """The document in the only line that a command prints."""
    status, line, _ = run(*words, **environment)
    assert (status, line.count("\n")) == (0, 1), line
    document: dict[str, Any] = json.loads(line)
    return document


def test_leaders_shows_each_lease_under_its_name(redis: Redis, run: Run) -> None:
    token = int(Caller(redis).acquire().token)
    leases = document(run, "leaders", "--json")["leases"]
    held = leases[LEASE]
    assert 25 < held.pop("remaining") <= 30
    assert held == {
        "key": KEY, "state": "held", "holder": "a", "token": token, "disabled_by": None, "reason": None,
        "asked_to_step_down": False, "problem": None,
    }  # fmt: skip
    assert (leases["daily_scheduler"]["state"], leases["daily_scheduler"]["holder"]) == ("vacant", None)


def test_a_table_cuts_long_names_and_json_does_not(redis: Redis, run: Run) -> None:
    lease, holder = "l" * 64, "h" * 128
    redis.set(f"portfolio:{lease}:leader", holder, ex=60)
    _, table, _ = run("leaders", LEASES=lease)
    assert all(len(line) <= 80 for line in table.splitlines())
    assert "…" in table
    assert document(run, "leaders", "--json")["leases"][lease]["holder"] == holder


@pytest.mark.parametrize("words", [["disable", LEASE, "60"], ["disable", LEASE, "60", "--reason", "because"]])
def test_disable_and_enable_print_one_document(redis: Redis, run: Run, words: list[str]) -> None:
    redis.set(KEY, "task-1")
    found = document(run, *words, "--json")
    assert found["disabled_by"]
    found["disabled_by"] = "somebody"
    assert found == {
        "lease": LEASE, "seconds": 60, "reason": "because" if "because" in words else None, "disabled_by": "somebody",
        "previous_holder": "task-1", "warnings": [],
    }  # fmt: skip
    disabled = document(run, "leaders", "--json")["leases"][LEASE]
    assert (disabled["state"], disabled["reason"]) == ("disabled", found["reason"])
    assert document(run, "enable", "--json", LEASE) == {"lease": LEASE, "enabled": True, "warnings": []}


def test_fence_prints_its_progress_outside_the_document(redis: Redis, run: Run) -> None:
    redis.hset(FENCE, "token", "garbage")
    redis.set(KEY, "DISABLED", ex=600)
    planned = document(run, "fence", LEASE, "--dry-run", "--json")
    assert (planned["result"], planned["token"]) == ("to be repaired", None)
    assert "every term is refused" in planned["problem"]
    status, line, errors = run("fence", LEASE, "--json", **SMALL)
    assert (status, line.count("\n"), "waiting" in errors) == (0, 1, True)
    repaired = json.loads(line)
    assert (repaired["result"], redis.hget(FENCE, "token")) == ("repaired", str(repaired["new_token"]))
    assert document(run, "fence", LEASE, "--json")["result"] == "sound"


def test_an_error_is_one_line_on_stderr_and_nothing_on_stdout(redis: Redis, run: Run) -> None:
    status, line, errors = run("enable", LEASE, "--json")
    assert (status, line, errors) == (1, "", f"sidecar: {LEASE} is not disabled: it is held by nobody\n")
