"""The network of a rehearsal: a bridge in a new network namespace, and one more namespace for each task.

`enter_private_network` takes the whole rehearsal out of the machine's network, so that its addresses and ports cannot
collide with those of other programs. A task's namespace stands for its `awsvpc` network interface: its containers share
one address and one loopback.
"""

import ctypes
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from ops.rehearse.programs import RehearsalError, call

PREFIX = "rehearse-"
"""Prefix of the names of the namespaces."""

NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000
BRIDGE, BRIDGE_MAC = "rehearse0", "02:00:0a:63:00:01"
LINK_LOCAL = "169.254.170.2"
"""Address of ECS's metadata and agent endpoints in every task."""

OBSERVER = "10.99.0.1"
BALANCER = "10.99.0.2"
POSTGRES = "10.99.0.3"
REDIS = "10.99.0.4", "10.99.0.5"
_TASKS = "10.99.1."
_MOST_TASKS = 250


def enter_private_network() -> None:
    """Move this process, and the processes that it starts later, into a new network namespace.

    Raises:
        RehearsalError: the kernel refuses the namespace.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise RehearsalError(f"no network namespace can be made: {os.strerror(ctypes.get_errno())}")


async def make_bridge() -> None:
    """Make the bridge with the addresses of everything except the tasks. The bridge vanishes with the namespace."""
    await call("ip", "link", "set", "lo", "up")
    # A bridge without a fixed MAC address takes the address of a port, and changes it when ports come and go. Packets
    # to the old address are then lost until every neighbour has resolved the new one.
    await call("ip", "link", "add", BRIDGE, "address", BRIDGE_MAC, "type", "bridge")
    await call("ip", "link", "set", BRIDGE, "up")
    for address in (OBSERVER, BALANCER, POSTGRES, *REDIS):
        await call("ip", "address", "add", f"{address}/16", "dev", BRIDGE)
    await call("ip", "address", "add", f"{LINK_LOCAL}/32", "dev", BRIDGE)


class Pod:
    """A task's network namespace, which can lose packets."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address

    @property
    def path(self) -> Path:
        """The file that names the namespace."""
        return NAMESPACES / self.name

    async def cut(self, peers: Iterable[str] = (), *, outgoing: bool = True, incoming: bool = True) -> None:
        """Drop all packets to and from these peers; without peers, drop the packets of every peer.

        The observer and ECS's endpoints are never cut off: they do not belong to the network between the machines.
        """
        for address in (OBSERVER, LINK_LOCAL):
            await self._iptables("-A", "OUTPUT", "-d", address, "-j", "ACCEPT")
            await self._iptables("-A", "INPUT", "-s", address, "-j", "ACCEPT")
        for chain, side, interface, lost in (("OUTPUT", "-d", "-o", outgoing), ("INPUT", "-s", "-i", incoming)):
            for match in [(side, peer) for peer in peers] or [(interface, "eth0")]:
                if lost:
                    await self._iptables("-A", chain, *match, "-j", "DROP")

    async def heal(self) -> None:
        """Stop dropping packets."""
        await self._iptables("-F", check=False)  # the task may be gone by now

    async def _iptables(self, *words: str, check: bool = True) -> None:
        await call("nsenter", f"--net={self.path}", "iptables", "-w", *words, check=check)


class Pods:
    """Makes the namespaces, each with its own address."""

    def __init__(self) -> None:
        self._made = 0

    @asynccontextmanager
    async def pod(self, label: str) -> AsyncIterator[Pod]:
        """Make a namespace with an address on the bridge; remove it after the block."""
        self._made += 1
        if self._made > _MOST_TASKS:
            raise RehearsalError(f"more than {_MOST_TASKS} tasks were started")
        pod = Pod(f"{PREFIX}{label}", f"{_TASKS}{self._made}")
        inside, link = ("ip", "-n", pod.name), f"task{self._made}"
        try:
            await call("ip", "netns", "add", pod.name)
            await call("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pod.name)
            await call("ip", "link", "set", link, "master", BRIDGE, "up")
            await call(*inside, "link", "set", "lo", "up")
            await call(*inside, "address", "add", f"{pod.address}/16", "dev", "eth0")
            await call(*inside, "link", "set", "eth0", "up")
            await call(*inside, "route", "add", f"{LINK_LOCAL}/32", "dev", "eth0")
            yield pod
        finally:
            await call("ip", "netns", "delete", pod.name, check=False)


async def namespaces() -> list[str]:
    """Return the names of the namespaces that rehearsals have made and not removed."""
    names = [line.split()[0] for line in (await call("ip", "netns", "list")).splitlines() if line]
    return [name for name in names if name.startswith(PREFIX)]


async def remove_namespaces() -> None:
    """Remove the remaining namespaces, and the mount that `ip netns add` makes for the first namespace."""
    for name in await namespaces():
        await call("ip", "netns", "delete", name)
    if not await call("ip", "netns", "list"):
        await call("umount", str(NAMESPACES), check=False)
