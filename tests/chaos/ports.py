"""Ports that stay free: below those that connections are given, so that a server that was killed gets its own back."""

import random

from ops.local.addresses import listeners, shifted
from ops.local.definition import TaskDefinition
from ops.local.settings import PORT_STEP
from tests.support.ports import claim

SERVERS = range(24_000, 32_000)
"""The tasks' ports lie below."""


def quiet_port() -> int:
    """A port for a server or a proxy that nobody listens on, drawn anew at each call."""
    while True:
        port = random.choice(SERVERS)
        if claim([port]):
            return port


def free_offset(definition: TaskDefinition, tasks: int) -> int:
    """How far to move the tasks' ports so that all of them are free."""
    ports = [port for one in definition.container_definitions for port in listeners(shifted(one, 0)).values()]
    while True:
        offset = random.randrange(1000, SERVERS.start - max(ports) - PORT_STEP * tasks, PORT_STEP)
        if claim(port + offset + PORT_STEP * number for port in ports for number in range(tasks)):
            return offset
