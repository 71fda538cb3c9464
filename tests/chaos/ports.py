"""Ports below the range of outgoing connections, so that a killed server can use its port again."""

import random

from ops.local.addresses import listeners, shifted
from ops.local.definition import TaskDefinition
from ops.local.settings import PORT_STEP
from tests.support.ports import claim

SERVERS = range(24_000, 32_000)
"""Ports of proxies and of all servers except cluster nodes; the ports of the tasks are below this range."""


def quiet_port() -> int:
    """Return a random free port for a server or a proxy."""
    while True:
        port = random.choice(SERVERS)
        if claim([port]):
            return port


def free_offset(definition: TaskDefinition, tasks: int) -> int:
    """Return an offset with which all ports of the tasks are free."""
    ports = [port for one in definition.container_definitions for port in listeners(shifted(one, 0)).values()]
    while True:
        offset = random.randrange(1000, SERVERS.start - max(ports) - PORT_STEP * tasks, PORT_STEP)
        if claim(port + offset + PORT_STEP * number for port in ports for number in range(tasks)):
            return offset
