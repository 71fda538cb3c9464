"""A sidecar process imports only the modules of its own kind of Redis and of login."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from ops.local.servers import RedisServer
from tests.sidecar.conftest import client_of, command
from tests.sidecar.redis.test_tls_texts import Certificates
from tests.support.processes import ROOT, Sidecar, get_json
from tests.support.proxy import Proxy
from tests.support.redis_cluster import redis_cluster
from tests.support.redis_sentinels import redis_sentinels
from tests.support.waiting import eventually

OPTIONAL = {
    "one server": set[str](),
    "cluster": {"sidecar.redis.cluster"},
    "sentinels": {"sidecar.redis.sentinels"},
    "password file": {"sidecar.redis.credentials"},
    "TLS": {"sidecar.redis.tls", "sidecar.tls_settings"},
    "IAM": {
        "sidecar.redis.tls", "sidecar.tls_settings", "sidecar.iam_settings", "sidecar.redis.credentials",
        "sidecar.redis.iam", "sidecar.redis.aws_signature",
    },
}  # fmt: skip
"""The modules that a kind needs in addition to the common modules, by kind."""
NEVER = r"(sidecar\.(client|commands|wrapper)|service|botocore|asyncpg|numpy|sqlite3)\b"
"""Modules of other programs of this project, and the libraries of those programs."""


@asynccontextmanager
async def settings_of(kind: str, folder: Path, server: RedisServer) -> AsyncIterator[dict[str, str]]:
    """The environment of a working sidecar of this kind."""
    async with AsyncExitStack() as open_:
        if kind == "cluster":
            cluster = await open_.enter_async_context(redis_cluster(folder))
            yield {"REDIS_URL": cluster.nodes[0].url, "REDIS_CLUSTER": "true", "LEASE_KEY": "{a}:{name}"}
        elif kind == "sentinels":
            group = await open_.enter_async_context(redis_sentinels(folder))
            yield {"REDIS_URL": "", "LEASE_TTL": "60", **group.environment}
        elif kind == "password file":
            (folder / "password").write_text("secret")
            yield {"REDIS_USERNAME": "sidecar", "REDIS_PASSWORD_FILE": str(folder / "password")}
        elif kind in ("TLS", "IAM"):
            files = Certificates(folder)
            way = await open_.enter_async_context(Proxy(server.port, files.accepts()))
            tls = {"REDIS_URL": f"rediss://127.0.0.1:{way.port}", "REDIS_TLS_CA_FILE": str(files.ca)}
            iam = {
                "REDIS_IAM": "cache", "REDIS_USERNAME": "sidecar", "AWS_REGION": "eu-central-1",
                "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example",
            }  # fmt: skip
            yield tls | (iam if kind == "IAM" else {})
        else:
            yield {}


@pytest.mark.parametrize("kind", OPTIONAL)
@pytest.mark.slow
async def test_no_module_of_an_unused_kind_is_imported(
    tmp_path: Path, redis_of_its_own: RedisServer, kind: str
) -> None:
    with client_of(redis_of_its_own) as redis:  # the user accepts any password, also an AWS token
        command(redis, "ACL", "SETUSER", "sidecar", "on", "nopass", "~*", "&*", "+@all")
    async with settings_of(kind, tmp_path, redis_of_its_own) as settings:
        log = tmp_path / "sidecar.log"
        asked = {"REQUIRE_CLIENT": "false", "PYTHONPROFILEIMPORTTIME": "1", **settings}
        async with Sidecar(log, redis_of_its_own.url, "a", **asked) as sidecar:
            await eventually(lambda: _leads(sidecar), within=60)
            sidecar.send()
            assert await sidecar.end() == 0
        loaded = set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", sidecar.output, re.MULTILINE))
    assert {"sidecar.run", "redis.asyncio"} <= loaded, "the list of the modules has its usual form"
    assert loaded & set[str]().union(*OPTIONAL.values()) == OPTIONAL[kind]
    assert [name for name in sorted(loaded) if re.match(NEVER, name)] == []


def test_every_module_is_needed_by_all_kinds_or_listed_under_its_kind() -> None:
    """Each new module of `sidecar/redis` must be added to `OPTIONAL` or to `common`."""
    package = ROOT / "sidecar/redis"
    listed = set[str]().union(*OPTIONAL.values())
    common = {
        "acquires", "connection", "failures", "history", "login", "optional", "place", "reconnects", "repeats",
        "replies", "route", "script_calls", "server_facts", "store", "watch",
    }  # fmt: skip
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert {f"sidecar.redis.{name}" for name in modules - common} == {name for name in listed if ".redis." in name}


async def _leads(sidecar: Sidecar) -> bool:
    shown = await get_json(f"{sidecar.url}/status")
    return bool(shown) and all(lease["is_leader"] for lease in shown["leases"].values())


def test_objects_from_imports_are_exempt_from_garbage_collection() -> None:
    """The garbage collections of these objects would take a tenth of the start time."""
    program = (
        "import gc, sidecar.__main__, sidecar.run\n"
        "sidecar.run.run = lambda *_: print(gc.get_freeze_count(), gc.isenabled()) or 0\n"
        "sidecar.__main__.main([])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    frozen, enabled = ran.stdout.split()
    assert (int(frozen) > 50_000, enabled) == (True, "True")
