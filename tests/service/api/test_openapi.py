"""The OpenAPI descriptions match the routes and a running service's answers to many kinds of requests."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import aiohttp
import jsonschema_rs
import pytest
import requests
import schemathesis
from aiohttp import web
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis.checks import positive_data_acceptance
from schemathesis.core import NOT_SET
from schemathesis.core.result import Ok

from ops.local.servers import RedisServer
from runtime.version import __version__
from service.api.internal_openapi import internal_description
from service.api.openapi import description
from service.commands.development_token import development_token
from service.commands.samples import SAMPLES, USERS
from service.portfolio.formats import EARLIEST, LATEST, QUANTITY_LIMIT, QUANTITY_PLACES
from service.settings import AuthSettings
from tests.support.processes import Service, Sidecar
from tests.support.served_api import PORTFOLIO, Served
from tests.support.waiting import eventually

PROJECT = "http://127.0.0.1:9"
SECRET = "a shared secret of more than thirty-two bytes"
OTHERS = next(portfolio for portfolio, (_, user, _) in SAMPLES.items() if user != USERS[0])
UNKNOWN = "99999999-9999-4999-8999-999999999999"

Case: TypeAlias = schemathesis.Case[Any]

schemathesis.openapi.format("date", st.dates(EARLIEST, LATEST).map(str))
schemathesis.openapi.format("decimal", st.decimals(0, QUANTITY_LIMIT - 1, places=QUANTITY_PLACES).map(str))


def described(document: dict[str, Any], *, inventing_tokens: bool) -> schemathesis.BaseSchema:
    """The requests to try: the description's examples, values at the schemas' limits, and a fixed sample of others.

    With `inventing_tokens`, requests have invalid tokens. The option is off for tests that send a valid token, and for
    the internal listener, which needs no token.
    """
    generation = {"max-examples": 25, "deterministic": True, "database": "none"}
    settings = {
        "seed": 1,
        "request-timeout": 20,
        "max-stream-events": 1,
        "generation": {**generation, "with-security-parameters": inventing_tokens},
        # A random id would never belong to a portfolio.
        "dictionaries": {"portfolios": {"values": [str(PORTFOLIO)] * 8 + [str(OTHERS), UNKNOWN]}},
        "parameters": {"path.id": {"dictionary": "portfolios", "probability": 0.8}},
    }
    return schemathesis.openapi.from_dict(document, config=schemathesis.Config.from_dict(settings))


BEYOND_SCHEMAS = (" is later than 'to'", "too large", "has more than 8 decimal places", " is also in [")
"""Texts of the errors for rules that no JSON Schema can express."""


@dataclass
class Running:
    """A service for all tests of the module, and a client."""

    url: str
    internal_url: str
    bearer: dict[str, str]
    http: requests.Session = field(default_factory=requests.Session)

    def call(
        self, case: Case, *, headers: dict[str, str] | None = None, internal: bool = False
    ) -> schemathesis.Response:
        """Send the request, and check the answer against the description."""
        url = self.internal_url if internal else self.url
        response: schemathesis.Response = case.call(base_url=url, session=self.http, headers=headers)
        content = response.json() if response.status_code == 400 else {}
        problems = [error["error"] for error in content.get("errors", [content])] if content else []
        beyond = bool(problems) and all(any(words in problem for words in BEYOND_SCHEMAS) for problem in problems)
        case.validate_response(
            response, headers=headers, excluded_checks=[positive_data_acceptance] if beyond else None
        )
        return response


@asynccontextmanager
async def running_service(database_url: str, redis_url: str, folder: Path) -> AsyncIterator[Running]:
    """A service with access tokens that has written live values and history."""
    settings = AuthSettings(supabase_url=PROJECT, supabase_jwt_secret=SecretStr(SECRET))
    bearer = {"Authorization": "Bearer " + development_token(settings, USERS[0], now=time.time(), hours=1)}

    async def worked() -> bool:
        async with session.get(f"{service.url}/portfolios/{PORTFOLIO}/live") as live:
            return live.status == 200 and (await service.get(f"/portfolios/{PORTFOLIO}/history"))["history"]

    async with (
        aiohttp.ClientSession(headers=bearer) as session,
        Sidecar(folder / "sidecar.log", redis_url, "one", LEASE_KEY=f"{uuid4().hex}:{{name}}") as sidecar,
        Service(
            folder / "service.log",
            session,
            DATABASE_URL=database_url,
            SIDECAR_URL=sidecar.url,
            AUTH="supabase",
            SUPABASE_URL=PROJECT,
            SUPABASE_JWT_SECRET=SECRET,
        ) as service,
    ):
        await eventually(worked)
        yield Running(service.url, service.internal_url, bearer)
        assert "Traceback" not in service.output


@pytest.fixture(scope="module")
def running(shared_url: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    service = running_service(shared_url, redis_server.url, tmp_path_factory.mktemp("openapi"))
    with asyncio.Runner() as runner:
        running = runner.run(service.__aenter__())
        with running.http:
            yield running
        runner.run(service.__aexit__(None, None, None))


owners = described(description(), inventing_tokens=False)
unauthenticated = described(description(), inventing_tokens=True)
operators = described(internal_description(), inventing_tokens=False)
OPERATIONS = {found.ok().label: found.ok() for found in owners.get_all_operations() if isinstance(found, Ok)}
OWNERS = {label for label in OPERATIONS if "/portfolios/" in label}


@owners.parametrize()
def test_the_answers_to_an_owner_match_the_description(case: Case, running: Running) -> None:
    running.call(case, headers=running.bearer)


@unauthenticated.parametrize()
def test_the_answers_without_a_token_reveal_nothing_and_match_the_description(case: Case, running: Running) -> None:
    response = running.call(case)
    if case.operation.label in OWNERS:
        there = response.json() != {"error": "no such path"}  # an id with a slash matches no route
        assert response.status_code in ({401, 405} if there else {404})


@operators.parametrize()
def test_the_internal_listeners_answers_match_the_description(case: Case, running: Running) -> None:
    running.call(case, internal=True)


@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_every_operation_does_answer_200(label: str, running: Running) -> None:
    operation = OPERATIONS[label]
    body = description()["components"]["schemas"]["Positions"]["examples"][0] if operation.body else NOT_SET
    case = operation.Case(path_parameters={"id": str(PORTFOLIO)}, body=body, media_type="application/json")
    response = running.call(case, headers=running.bearer)
    assert response.status_code == 200
    if label.endswith("/history"):
        assert response.json()["history"]


def routes(application: web.Application) -> set[str]:
    """The operations of an application, without each HEAD route whose path also has a GET route."""
    found = {(route.method, resource.canonical) for resource in application.router.resources() for route in resource}
    got = {path for method, path in found if method == "GET"}
    return {f"{method} {path}" for method, path in found if method != "HEAD" or path not in got}


def test_the_routes_are_those_of_the_description(served: Served) -> None:
    assert routes(served.api.application()) == set(OPERATIONS)
    internal = {found.ok().label for found in operators.get_all_operations() if isinstance(found, Ok)}
    assert routes(served.internal.application()) == internal


async def test_each_listener_serves_its_own_description_to_everybody(served: Served) -> None:
    assert await served.get("/openapi.json") == (200, description())
    assert await served.get_internal("/openapi.json") == (200, internal_description())
    owners.validate()
    operators.validate()


async def test_each_event_of_a_stream_matches_the_description(running: Running, session: aiohttp.ClientSession) -> None:
    document = description()
    live = jsonschema_rs.validator_for({"$ref": "#/components/schemas/LiveValue", **document}, validate_formats=True)
    url = f"{running.url}/portfolios/{PORTFOLIO}/stream"
    seen: set[str] = set()
    async with asyncio.timeout(20), session.get(url, headers=running.bearer) as stream:
        assert stream.content_type == "text/event-stream"
        while len(seen) < 3:
            line = (await stream.content.readline()).decode()
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                live.validate(event)
                seen.add(event["as_of"])


def test_both_descriptions_have_the_version_of_the_project() -> None:
    assert {document["info"]["version"] for document in (description(), internal_description())} == {__version__}
