"""The parts of a rehearsal: network, servers, load balancer, service, load and observers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from ops.rehearse.balancer import PORT, TARGET_PORT, Balancer
from ops.rehearse.cgroups import task_group
from ops.rehearse.endpoints import Protections, endpoints_server
from ops.rehearse.environment import container_environment
from ops.rehearse.isolation import until
from ops.rehearse.journal import Journal
from ops.rehearse.leaders import LEASES, LeaderWatch
from ops.rehearse.load import Account, Load
from ops.rehearse.member import API, Member
from ops.rehearse.names import Names
from ops.rehearse.network import BALANCER, Pods, make_bridge
from ops.rehearse.podman import run_once
from ops.rehearse.profile import Profile
from ops.rehearse.programs import RehearsalError
from ops.rehearse.servers import RedisPair, TlsPostgres
from ops.rehearse.service import Service
from ops.rehearse.versions import Version
from tests.chaos import database
from tests.support.tls import Authority

OWNERS = (
    ("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa", "11111111-1111-4111-8111-111111111111"),
    (
        "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb",
        "33333333-3333-4333-8333-333333333333",
    ),
)
"""Users of the sample portfolios (`python -m service sample`), each with one of the user's portfolios."""

TASKS = 2
"""The desired count at the start, and after each event."""


class Stage:
    """The parts that events act on; `running` starts them."""

    def __init__(
        self, folder: Path, profile: Profile, versions: Mapping[str, Version], first: str, journal: Journal
    ) -> None:
        self.profile = profile
        self._versions = versions
        self.journal = journal
        self._folder = folder
        authority = Authority("rehearsal")
        authority.write(folder / "ca.crt")
        self._names = Names(folder)
        self.redis = RedisPair(folder, self._names, authority)
        (folder / "postgres").mkdir(exist_ok=True)
        self.postgres = TlsPostgres(folder / "postgres", authority)
        self.balancer = Balancer(folder / "balancer", journal)
        self._pods = Pods()
        self._protections = Protections()
        self.service = Service(versions[first], self._new_member, self._protections, journal)
        self._endpoints = endpoints_server(versions[first].definition.family, self.service.views, self._protections)
        self.leaders = LeaderWatch(lambda: self.service.members)
        self.load = Load("", (), profile.requests, profile.streams)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the service under load during the block; nothing is left after it."""
        version = self.service.version.name
        await make_bridge()
        try:
            async with self._endpoints, self.redis, self.postgres, self.balancer:
                await self.one_off(version, "migrate")
                await self.one_off(version, "sample")
                await database.watch(self.postgres.url)
                accounts = [
                    Account(portfolio, await self.one_off(version, "token", "--user", user, "--hours", "24"))
                    for user, portfolio in OWNERS
                ]
                profile = self.profile
                self.load = Load(f"http://{BALANCER}:{PORT}", accounts, profile.requests, profile.streams)
                async with asyncio.TaskGroup() as group:
                    beside = [
                        group.create_task(run)
                        for run in (self.balancer.watch(), self.service.keep(), self.leaders.run())
                    ]
                    self.service.scale(TASKS)
                    await until(self.is_well, 120.0, "the first tasks are healthy")
                    await until(self._has_values, 60.0, "the portfolios have values")
                    sending = group.create_task(self.load.run())
                    yield
                    sending.cancel()
                    await self.service.stop()
                    for task in beside:
                        task.cancel()
        finally:
            self.journal.close()

    def deploy(self, version: str) -> None:
        """Begin to deploy the version of that name."""
        self.service.deploy(self._versions[version])

    async def one_off(self, version: str, *command: str) -> str:
        """Run a command of the API as a one-off task; returns the last line of its output.

        Raises:
            RehearsalError: the command failed.
        """
        images = self._versions[version].images
        definition = self._versions[version].definition.container(API)
        label = f"once-{command[0]}"
        async with self._pods.pod(label) as pod, task_group(label, None) as group:
            code, text = await run_once(
                definition,
                command,
                image=images[API],
                pod=pod,
                group=group,
                environment=container_environment(definition, self.profile, {}),
                folder=self._folder,
            )
        self.journal.output(command[0], text.encode())
        last = (text.strip().splitlines() or [""])[-1]
        if code != 0:
            raise RehearsalError(f"`python -m service {command[0]}` of version {version} exited with {code}: {last}")
        return last

    @property
    def ttl(self) -> float:
        """LEASE_TTL of the tasks, in seconds."""
        sidecar = self.service.version.definition.container("sidecar").variables
        return float(self.profile.variables.get("LEASE_TTL") or sidecar["LEASE_TTL"])

    async def new_stream(self, member: Member) -> tuple[int, str | None]:
        """Open and close a stream of that task without the load balancer; returns the status and Retry-After."""
        if member.pod is None:
            raise RehearsalError(f"{member.label} has ended")
        account = self.load.accounts[0]
        url = f"http://{member.pod.address}:{TARGET_PORT}/portfolios/{account.portfolio}/stream"
        async with aiohttp.ClientSession() as session, session.get(url, headers=account.headers) as answer:
            return answer.status, answer.headers.get("Retry-After")

    async def writes(self) -> list[database.Accepted]:
        """Return the writes that the database has accepted, in commit order."""
        return await database.accepted(self.postgres.url)

    def leader(self) -> Member:
        """The task that leads the tracker's lease.

        Raises:
            RehearsalError: no task leads.
        """
        label = self.leaders.leaders().get(LEASES[0])
        for member in self.service.members:
            if member.label == label and member.ended is None:
                return member
        raise RehearsalError("no task leads, but the event needs a leader")

    def is_well(self) -> bool:
        """Return true if the service is steady and, if any task is wanted, each lease has a leader."""
        led = self.service.desired == 0 or set(self.leaders.leaders()) == set(LEASES)
        return self.service.steady and led

    def fail_over(self) -> Awaitable[None]:
        """Kill the Redis primary; its replica takes its name."""
        return self.redis.fail_over()

    async def _has_values(self) -> bool:
        writes = await self.writes()
        return any(write.via == "portfolio_live" for write in writes)

    def _new_member(self, label: str, version: Version) -> Member:
        return Member(
            label,
            version,
            pods=self._pods,
            balancer=self.balancer,
            endpoints=self._endpoints,
            profile=self.profile,
            folder=self._folder,
            journal=self.journal,
        )
