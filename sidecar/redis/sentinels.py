"""The primary that sentinels name.

A sentinel that was cut off, or that has just started, may name an old primary. So a majority of the sentinels has to
name the same primary, of the same configuration epoch. Any two majorities share a sentinel, and no sentinel returns to
an older epoch. So after a majority has named a new primary, no majority names the old one again. The server itself must
confirm that it is a primary (ROLE).

After a failover an old primary may still serve, and a connection to it still works. If the holder has moved to the new
primary, its key expires at the old primary, where another candidate could acquire the lease. So the sentinels are asked
again every heartbeat, and before each attempt to acquire a lease.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from redis.exceptions import InvalidResponse, RedisError, ResponseError

from sidecar.redis.connection import RedisConnection
from sidecar.redis.failures import NoPrimary, OtherPrimary, failure_of
from sidecar.redis.login import log_in
from sidecar.redis.place import NoRedirects, shown
from sidecar.server_kind import Node, Sentinels

log = logging.getLogger(__name__)


class Named(NamedTuple):
    """A sentinel's answer: the primary and its configuration epoch. A larger epoch is newer."""

    epoch: int
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port} of epoch {self.epoch}"


class SentinelPlace(NoRedirects):
    """Asks the sentinels for each connection.

    Args:
        sentinels: their addresses, and the name of the primary's group.
        direct: makes a connection to a sentinel.
        limit: seconds for one connection of the election, including the query to the sentinels.
    """

    def __init__(self, sentinels: Sentinels, direct: Callable[[Node], RedisConnection], limit: float) -> None:
        self._sentinels = sentinels
        self._direct = direct
        self._share = limit / 2
        self._found: Node | None = None
        self._problem: str | None = None

    async def find(self) -> Node:
        """The primary.

        Raises:
            NoPrimary: no majority of the sentinels names the same primary.
        """
        self._found = await self._ask()
        return self._found

    async def confirm(self, connection: RedisConnection) -> None:
        """Check that the server itself says that it is a primary.

        Raises:
            NoPrimary: the server says that it is not a primary.
            RedisError: the server does not answer, or the user has no right to ROLE.
        """
        await connection.send_command("ROLE")
        answer: Any = await connection.read_response()
        role = answer[0] if isinstance(answer, list) and answer else None
        if role != "master":
            server = f"{connection.host}:{connection.port}"
            raise NoPrimary(f"the sentinels name {server}, which says that it is not a primary")

    assured = False

    async def assure(self) -> None:
        """Check that a majority of the sentinels still names the primary that was found last.

        Raises:
            OtherPrimary: the majority names another primary.
            NoPrimary: there is no majority.
        """
        if await self._ask() != self._found:
            raise OtherPrimary("the sentinels name another primary now")

    def named(self, node: Node) -> str:
        """The primary's address; '' for a sentinel."""
        return f"{shown(node)}, which the sentinels name" if node == self._found else ""

    def doubt(self) -> None:
        """Do nothing: the sentinels are asked for each connection."""

    async def elsewhere(self) -> bool:
        """Whether the sentinels name another primary than the one found last. False if they do not answer."""
        if self._found is None:
            return False
        try:
            named = await self._ask()
        except RedisError as error:
            self._report(failure_of(error, may_execute=False).text)
            return False
        self._report(None)
        return named != self._found

    async def _ask(self) -> Node:
        """Return the primary as soon as a majority names it, so that a silent sentinel causes no delay."""
        nodes = self._sentinels.nodes
        asked = {asyncio.ensure_future(self._answer(node)): node for node in nodes}
        answers: dict[Node, Named | str] = {}
        pending = set(asked)
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                answers |= {asked[task]: task.result() for task in done}
                named, votes = _most_named(answers.values())
                if named is not None and 2 * votes > len(nodes):
                    return named.host, named.port
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        reasons = "; ".join(f"{host}:{port}: {answers[host, port]}" for host, port in nodes)
        raise NoPrimary(f"{votes} of {len(nodes)} sentinels name the same primary, but a majority is needed: {reasons}")

    async def _answer(self, node: Node) -> Named | str:
        """The primary that one sentinel names, or the reason why it names none."""
        connection = self._direct(node)
        try:
            async with asyncio.timeout(self._share):
                await log_in(connection)
                return await self._named(connection)
        except (RedisError, OSError) as error:
            failure = failure_of(error, may_execute=False)
            return failure.text + (" (REDIS_SENTINEL_PASSWORD)" if failure.kind in ("auth", "noauth") else "")
        except Exception as error:  # noqa: BLE001 - a malformed answer can make redis-py raise any error
            return f"malformed: {type(error).__name__}"
        finally:
            await connection.disconnect(nowait=True)

    async def _named(self, connection: RedisConnection) -> Named:
        master = self._sentinels.master
        # One write, so that both answers describe the same moment.
        packed = connection.pack_commands(
            [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", master), ("SENTINEL", "MASTER", master)]
        )
        await connection.send_packed_command(packed)
        try:
            address: Any = await connection.read_response(disconnect_on_error=False)
            fields: Any = await connection.read_response()
        except ResponseError as error:
            if "unknown command" in str(error).lower():
                raise NoPrimary("it is not a sentinel; a sentinel's port is usually 26379") from None
            if "No such master" in str(error):
                raise NoPrimary(f"it watches no primary named {master} (REDIS_SENTINEL_MASTER)") from None
            raise
        try:
            epoch = int(fields[fields.index("config-epoch") + 1])
            return Named(epoch, str(address[0]), int(address[1]))
        except (TypeError, ValueError, IndexError) as error:
            raise InvalidResponse("the answer of a sentinel does not have the expected shape") from error

    def _report(self, problem: str | None) -> None:
        """Log each new reason why the sentinels do not name the primary, and log once that they answer again."""
        if problem == self._problem:
            return
        self._problem = problem
        if problem is None:
            log.info("The sentinels answer again")
        else:
            log.warning("The sentinels do not name the primary: %s. The sidecar keeps its connection, and notices a"
                        " failover late", problem)  # fmt: skip


def _most_named(answers: Iterable[Named | str]) -> tuple[Named | None, int]:
    """Return the primary that most sentinels name, and the number of those sentinels."""
    counted = Counter(answer for answer in answers if isinstance(answer, Named)).most_common(1)
    return counted[0] if counted else (None, 0)
