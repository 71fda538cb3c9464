"""The service with a login that row-level security covers: it is no superuser, lacks BYPASSRLS, and owns nothing."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import pytest

from service.commands.samples import SAMPLES
from tests.service.api.test_streams import line
from tests.support.processes import Service, Sidecar, command_of
from tests.support.served_api import PORTFOLIO
from tests.support.waiting import eventually

COVERED = """
select count(*) = 1 and bool_and(not rolsuper and not rolbypassrls and row_security_active('public.portfolio'))
    and not exists (select from pg_class where relowner = (select oid from pg_roles where rolname = current_user))
from pg_roles where rolname = current_user
"""
WITHOUT_THE_ROLE = """
select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'public' and c.relkind in ('r', 'p') and not (
    c.relrowsecurity
    and exists (select from pg_policy where polrelid = c.oid and polroles = array['portfolio_service'::regrole::oid])
    and has_table_privilege('portfolio_service', c.oid, 'select, insert')
    and not has_table_privilege('portfolio_service', c.oid, 'truncate')
)
"""


@pytest.fixture
async def admin(samples_url: str) -> AsyncIterator[Any]:
    """A connection as the owner of the tables."""
    admin = await asyncpg.connect(samples_url)
    yield admin
    await admin.close()


@pytest.fixture
async def login(admin: Any, samples_url: str) -> AsyncIterator[str]:
    """The address of the database for a login without any rights."""
    name = f"login_{uuid4().hex[:12]}"
    await admin.execute(f"create role {name} login")
    yield samples_url.replace("postgres@", f"{name}@")
    await admin.execute(f"drop owned by {name}; drop role {name}")


def name_of(url: str) -> str:
    return url.split("//")[1].partition("@")[0]


@pytest.fixture
async def member(admin: Any, login: str) -> str:
    """The address for a login that is a member of the service's role, as in docs/database.md."""
    await admin.execute(f"grant portfolio_service to {name_of(login)}")
    connection = await asyncpg.connect(login)
    assert await connection.fetchval(COVERED)
    await connection.close()
    return login


async def test_the_whole_service_works_as_a_login_that_row_level_security_covers(
    member: str,
    admin: Any,
    new_sidecar: Callable[..., Sidecar],
    new_service: Callable[..., Service],
    stack: AsyncExitStack,
    session: aiohttp.ClientSession,
) -> None:
    sidecar = await stack.enter_async_context(new_sidecar("a"))
    service = await stack.enter_async_context(new_service("a", sidecar.url, DATABASE_URL=member))
    await eventually(service.leads)
    async with session.get(f"{service.url}/portfolios/{PORTFOLIO}/stream") as response:
        assert await line(response, b"data:")
        assert await line(response, b"data:")
    await eventually(lambda: service.leads("daily_scheduler"))
    entries = [{"symbol": "KO", "quantity": "7", "valid_from": "2026-02-13"}]
    url = f"{service.url}/portfolios/{PORTFOLIO}/positions"
    async with session.put(url, json=entries) as response:
        assert response.status == 200, await response.text()
    await eventually(lambda: admin.fetchval("select count(*) > 0 from public.portfolio_intraday"))
    assert (await service.get_internal("/healthz"))["database"] == "ok"
    assert (await service.get(f"/portfolios/{PORTFOLIO}/live"))["portfolio_id"] == str(PORTFOLIO)
    failures = [entry for entry in service.lines() if entry["level"] in ("ERROR", "CRITICAL")]
    assert not failures
    assert "permission denied" not in service.output
    assert "row-level security" not in service.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "eod"),
        ("run", "snapshot"),
        ("run", "reconstruct"),
        ("import", "positions", "positions.csv"),
        ("import", "prices", "prices.csv"),
        ("sample",),
        ("fence", "daily_scheduler", "--dry-run"),
    ],
)
async def test_each_command_works_as_a_login_that_row_level_security_covers(
    arguments: tuple[str, ...], member: str, tmp_path: Path
) -> None:
    user = SAMPLES[PORTFOLIO][1]
    positions = f"portfolio_id,user_id,symbol,quantity,valid_from\n{uuid4()},{user},KO,2.5,2026-02-13\n"
    (tmp_path / "positions.csv").write_text(positions)
    (tmp_path / "prices.csv").write_text("symbol,session_date,close\nKO,2026-02-13,70.5\n")
    given = [str(tmp_path / argument) if argument.endswith(".csv") else argument for argument in arguments]
    settings = {"DATABASE_URL": member, "PRICE_SOURCE": "simulated", "AUTH": "off", "MARKET_CALENDAR": "NYSE"}
    async with command_of("service", tmp_path / "log", *given, **settings) as command:
        assert await command.end() == 0, command.output


async def test_a_login_without_the_role_is_reported_with_the_remedy_and_works_once_it_has_the_role(
    login: str,
    admin: Any,
    new_service: Callable[..., Service],
    new_sidecar: Callable[..., Sidecar],
    stack: AsyncExitStack,
) -> None:
    """Rights on the tables alone are not enough: every request for a portfolio would be answered with 404."""
    name = name_of(login)
    await admin.execute(f"grant usage on schema public to {name}; grant all on all tables in schema public to {name}")
    sidecar = await stack.enter_async_context(new_sidecar("a"))
    service = await stack.enter_async_context(new_service("a", sidecar.url, DATABASE_URL=login))
    message = (
        f"DATABASE_URL: row-level security hides the portfolios from the role {name}; "
        "it has to be a member of portfolio_service (docs/database.md)"
    )

    async def database() -> str:
        return str((await service.get_internal("/healthz"))["database"])

    async def says(text: str) -> bool:
        return await database() == text

    await eventually(lambda: says(message))
    async with service.session.get(f"{service.url}/portfolios/{PORTFOLIO}/live") as response:
        assert (response.status, await response.json()) == (503, {"error": "the database is not available"})
    await admin.execute(f"grant portfolio_service to {name}")
    await eventually(lambda: says("ok"))
    await eventually(service.leads)


async def test_a_missing_right_is_reported_with_the_setting(login: str, admin: Any, tmp_path: Path) -> None:
    await admin.execute(f"grant usage on schema public to {name_of(login)}")
    file = tmp_path / "prices.csv"
    file.write_text("symbol,session_date,close\nKO,2026-02-13,70.5\n")
    settings = {"DATABASE_URL": login, "PRICE_SOURCE": "simulated", "AUTH": "off"}
    async with command_of("service", tmp_path / "log", "import", "prices", str(file), **settings) as command:
        assert await command.end() == 1
    assert command.output.splitlines()[-1].startswith("database: permission denied for table ")
    assert command.output.endswith("; DATABASE_URL's role lacks a right (docs/database.md)\n")


async def test_a_database_that_is_not_migrated_is_reported_with_the_command(
    database_url: str, new_service: Callable[..., Service], stack: AsyncExitStack
) -> None:
    service = new_service("a", "http://127.0.0.1:1", DATABASE_URL=database_url)
    await stack.enter_async_context(service)

    async def is_reported() -> bool:
        report = await service.get_internal("/healthz")
        return str(report["database"]).endswith("; bring it up to date with python -m service migrate")

    await eventually(is_reported)


async def test_the_role_has_rights_on_every_table_and_none_on_the_partitions(admin: Any) -> None:
    """A new table needs a grant and the policy `service_works`: see 20261128160000_service_role.sql."""
    assert [row[0] for row in await admin.fetch(WITHOUT_THE_ROLE)] == []
    assert not await admin.fetchval("select has_schema_privilege('portfolio_service', 'partitions', 'usage')")
    assert not await admin.fetchval(
        "select rolcanlogin or rolbypassrls or rolsuper from pg_roles where rolname = $1", "portfolio_service"
    )


async def test_the_owners_functions_ignore_the_callers_temporary_tables(member: str, admin: Any) -> None:
    await admin.execute("select public.make_history_partition('2026-02-13')")
    connection = await asyncpg.connect(member)
    try:
        await connection.execute(
            """
            create temp table pg_inherits as
                select c.oid as inhrelid, 'public.portfolio_intraday'::regclass::oid as inhparent
                from pg_catalog.pg_class c where c.relname = 'portfolio_history_20260201';
            grant select on pg_inherits to public;
            """
        )
        assert await connection.fetchval("select public.drop_intraday_partitions('2026-02-13')") == 0
    finally:
        await connection.close()
    assert await admin.fetchval("select to_regclass('partitions.portfolio_history_20260201') is not null")


async def test_a_user_of_the_databases_own_api_gains_no_rights_from_the_role(admin: Any) -> None:
    claims = json.dumps({"sub": str(uuid4())})
    async with admin.transaction():
        await admin.execute("set local role authenticated")
        await admin.execute("select set_config('request.jwt.claims', $1, true)", claims)
        assert await admin.fetchval("select count(*) from public.portfolio") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await admin.execute("select public.make_intraday_partition('2026-02-13')")
