"""The OpenAPI description of the control listener matches its routes and its answers to any request."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok

from ops.local.servers import RedisServer
from sidecar.control import LONGEST_WAIT
from sidecar.control_openapi import description
from tests.support.processes import RealSidecar, get_json, killed_at_exit
from tests.support.served_control import KEYS, served
from tests.support.waiting import eventually

LEASE = "background_services"
CONFIG = {
    "seed": 1,
    "request-timeout": 40,
    "generation": {"max-examples": 30, "deterministic": True, "database": "none"},
}
document = schemathesis.openapi.from_dict(
    description([LEASE], LONGEST_WAIT), config=schemathesis.Config.from_dict(CONFIG)
)
OPERATIONS = {found.ok().label: found.ok() for found in document.get_all_operations() if isinstance(found, Ok)}


@pytest.fixture(scope="module")
def url(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    sidecar = RealSidecar(tmp_path_factory.mktemp("openapi"), redis_server, "task-a")
    with killed_at_exit(sidecar):
        sidecar.start()
        asyncio.run(eventually(lambda: get_json(f"{sidecar.url}/healthz"), within=60))
        yield sidecar.url
        assert "Traceback" not in sidecar.output


@document.parametrize()
def test_every_answer_matches_the_description(case: schemathesis.Case[Any], url: str) -> None:
    response = case.call(base_url=url)
    follows = response.status_code == 503 and "/leader/" in case.operation.label  # the answer of a follower
    case.validate_response(response, excluded_checks=[not_a_server_error] if follows else None)


@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_every_operation_can_answer_200(label: str, url: str) -> None:
    lead = requests.get(f"{url}/is-leader/{LEASE}", timeout=10).json()
    while not lead["is_leader"]:
        query = {"wait": "5", "version": lead["version"]}
        lead = requests.get(f"{url}/is-leader/{LEASE}", params=query, timeout=10).json()
    case = OPERATIONS[label].Case(path_parameters={"lease": LEASE}, headers={"X-Lease-Client": "test"})
    response = case.call(base_url=url)
    case.validate_response(response)
    assert response.status_code == 200


async def test_the_description_is_served_and_lists_the_routes_of_the_listener(redis_server: RedisServer) -> None:
    async with served(redis_server) as sidecar:
        found = await sidecar.get("/openapi.json")
        assert found == description(list(KEYS), LONGEST_WAIT)
        resources = sidecar.app.router.resources()
        routes = {(route.method, resource.canonical) for resource in resources for route in resource}
    described = {(method.upper(), path) for path, each in found["paths"].items() for method in each}
    assert described <= routes
    assert {method for method, _ in routes - described} == {"HEAD"}, "every other route answers only HEAD"
    document.validate()
