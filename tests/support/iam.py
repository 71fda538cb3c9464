"""ElastiCache's IAM as far as a client sees it: an endpoint with a role's credentials, and a cache that checks tokens.

The cache is a TLS server in front of a real Redis. It parses a token and lets botocore sign the same request with the
keys of the role. If the signatures match, it passes all further commands on to Redis, which needs no password.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ssl import SSLContext
from typing import Self
from urllib.parse import parse_qs, urlsplit

from aiohttp import web
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.hooks import HierarchicalEmitter
from botocore.model import ServiceId
from botocore.signers import RequestSigner

from sidecar.iam_settings import AwsKeys

CACHE, REGION, USER = "portfolio", "eu-central-1", "sidecar"


class Role:
    """A task's role: its current credentials, and the ECS endpoint that returns them."""

    def __init__(self) -> None:
        self.asked = 0
        """The number of requests."""
        self.valid_for = timedelta(hours=6)
        self.authorization: str | None = None
        """The required value of the header Authorization."""
        self.answers: web.Response | None = None
        """The answer in place of credentials."""
        self.hangs = False
        self.keys = AwsKeys("ASIAROLE0", "secret/key+0", "session//token==0")
        self.issued = {self.keys.key_id: self.keys}
        self.url = ""

    def rotate(self) -> None:
        """Return other credentials from now on."""
        number = len(self.issued)
        self.keys = AwsKeys(f"ASIAROLE{number}", f"secret/key+{number}", f"session//token=={number}")
        self.issued[self.keys.key_id] = self.keys

    async def handle(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(60)
        if self.answers is not None:
            return web.Response(status=self.answers.status, body=self.answers.body)
        if self.authorization is not None and request.headers.get("Authorization") != self.authorization:
            return web.json_response({"code": "AccessDenied"}, status=403)
        until = datetime.now(UTC) + self.valid_for
        return web.json_response(
            {
                "RoleArn": "arn:aws:iam::111122223333:role/task",
                "AccessKeyId": self.keys.key_id,
                "SecretAccessKey": self.keys.secret,
                "Token": self.keys.session_token,
                "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": self.url}


@asynccontextmanager
async def role() -> AsyncIterator[Role]:
    """An endpoint that serves a role's credentials."""
    it = Role()
    app = web.Application()
    app.router.add_get("/v2/credentials/6a1c", it.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    it.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v2/credentials/6a1c"
    try:
        yield it
    finally:
        await runner.cleanup()


def presigned_by_botocore(keys: AwsKeys, *, cache: str, user: str, region: str, serverless: bool) -> str:
    """A token that botocore's signer makes for the current time, as in AWS's documentation."""
    parameters = {"Action": "connect", "User": user} | ({"ResourceType": "ServerlessCache"} if serverless else {})
    query = "&".join(f"{name}={value}" for name, value in sorted(parameters.items()))
    credentials = Credentials(keys.key_id, keys.secret, keys.session_token)
    events = HierarchicalEmitter()  # a variable, as the signer keeps only a weak reference
    signer = RequestSigner(ServiceId("elasticache"), region, "elasticache", "v4", credentials, events)
    request = {"method": "GET", "url": f"https://{cache}/?{query}", "body": {}, "headers": {}, "context": {}}
    url: str = signer.generate_presigned_url(request, operation_name="connect", expires_in=900, region_name=region)
    return url.removeprefix("https://")


class IamCache:
    """The cache, an async context manager; `port` is where it listens.

    Args:
        target: the port of a Redis whose default user has no password.
        tls: the TLS context of the cache.
        role: the role whose credentials it accepts.
        cut_after: age at which it cuts a connection, in seconds; None for never.
    """

    def __init__(self, target: int, tls: SSLContext, role: Role, *, cut_after: float | None = None) -> None:
        self._target = target
        self._tls = tls
        self._role = role
        self._cut_after = cut_after
        self.port = 0
        self.logins: list[str] = []
        """The key ids of the logins that were accepted, in order."""
        self.refused = 0
        self.cut = 0
        """Connections that reached the age at which they are cut."""
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await self.cut_all()

    async def cut_all(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "REDIS_TLS": "true", "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(self.port), "REDIS_USERNAME": USER,
            "REDIS_IAM": CACHE, "AWS_REGION": REGION,
        }  # fmt: skip

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        words = await _command(reader)
        if words[0] != "AUTH" or not self._knows(*words[1:]):
            self.refused += 1
            writer.write(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n")
            await writer.drain()
            return
        writer.write(b"+OK\r\n")
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        pumps = [
            asyncio.ensure_future(_pump(reader, server_writer)),
            asyncio.ensure_future(_pump(server_reader, writer)),
        ]
        try:
            done, _ = await asyncio.wait(pumps, timeout=self._cut_after, return_when=asyncio.FIRST_COMPLETED)
            self.cut += not done
        finally:
            server_writer.close()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    def _knows(self, user: str, token: str) -> bool:
        """Return true if the token is for this user, is recent, and has the right signature.

        The right signature is the one that botocore makes for the request with the keys that the token names.
        """
        url = f"https://{token}"
        given = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        keys = self._role.issued.get(given["X-Amz-Credential"].partition("/")[0])
        age = datetime.now(UTC) - datetime.strptime(given["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if keys is None or user != given["User"] or not timedelta(seconds=-5) < age < timedelta(minutes=15):
            return False
        signature = signature_by_botocore(keys, url)
        if signature == given["X-Amz-Signature"]:
            self.logins.append(keys.key_id)
            return True
        return False


def signature_by_botocore(keys: AwsKeys, url: str) -> str:
    """The signature that botocore makes for a presigned URL, with the timestamp in the URL."""
    unsigned, _, _ = url.partition("&X-Amz-Signature=")
    given = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    auth = SigV4QueryAuth(Credentials(keys.key_id, keys.secret, keys.session_token), "elasticache", REGION, expires=900)
    request = AWSRequest(method="GET", url=unsigned, headers={"host": urlsplit(url).netloc})
    request.context["timestamp"] = given["X-Amz-Date"]
    text = auth.string_to_sign(request, auth.canonical_request(request))
    signature: str = auth.signature(text, request)
    return signature


async def _command(reader: asyncio.StreamReader) -> list[str]:
    """Read a RESP2 command."""
    count = int((await reader.readuntil(b"\r\n"))[1:])
    words = []
    for _ in range(count):
        length = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(length + 2))[:-2].decode())
    return words


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
